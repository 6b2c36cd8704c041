// The elements of index.html by their ids, and new ones.

export const $ = <T extends HTMLElement = HTMLElement>(id: string): T => {
  const element = document.getElementById(id);
  if (!element) throw new Error(`the page has no #${id}`);
  return element as T;
};

export const input = (id: string) => $<HTMLInputElement>(id);

/** What a number field says; undefined if it is empty. */
export const number = (id: string) => (input(id).value === "" ? undefined : input(id).valueAsNumber);

/** The chosen one of some radio buttons. */
export const choice = (name: string) => document.querySelector<HTMLInputElement>(`input[name="${name}"]:checked`)!.value;

export function element<K extends keyof HTMLElementTagNameMap>(tag: K, textContent: string, className = ""): HTMLElementTagNameMap[K] {
  return Object.assign(document.createElement(tag), { textContent, className });
}
