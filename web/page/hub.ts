// The server that models come from: huggingface.co, or another one that the page's address names and the visitor agrees to.

import { $ } from "./elements";

const HUGGING_FACE = "https://huggingface.co";
/** It hands large files out from elsewhere. */
const ITS_HOSTS = `${HUGGING_FACE} https://*.huggingface.co https://*.hf.co`;

/** The address that `?hub=` gives; null if that is none. One with a name or password in it looks like another server's. */
function webAddress(text: string): URL | null {
  const address = URL.parse(text);
  if (!address || !/^https?:$/.test(address.protocol)) return null;
  return address.username || address.password || address.search || address.hash ? null : address;
}

/** Asks the visitor about the server that a link names. Nothing is sent to it before, or if it is declined. */
async function agrees(address: URL): Promise<boolean> {
  $("other-hub-host").textContent = address.host;
  $("other-hub-address").textContent = address.href;
  $("other-hub").hidden = false;
  const use = await new Promise<boolean>((resolve) => {
    $("other-hub-use").addEventListener("click", () => resolve(true));
    $("other-hub-decline").addEventListener("click", () => resolve(false));
  });
  $("other-hub").hidden = true;
  return use;
}

/** Lets the page, and the worker that it starts from here on, connect to itself and to `servers` only. */
function confine(servers: string): void {
  const policy = document.createElement("meta");
  policy.httpEquiv = "Content-Security-Policy";
  policy.content = `connect-src 'self' ${servers}`;
  document.head.append(policy);
}

/** The server to load models from, settled with the visitor. */
export async function chooseHub(complain: (message: string) => void): Promise<string> {
  const asked = new URLSearchParams(location.search).get("hub");
  const address = asked === null ? null : webAddress(asked);
  if (asked !== null && !address) complain("The link that led here names a server for models by what is no plain http or https address. Models come from huggingface.co.");
  if (address && address.origin !== HUGGING_FACE && (await agrees(address))) {
    $("hub-label").textContent = `From ${address.host}`;
    // Where it hands files out from is its own affair.
    confine(`${address.origin} https:`);
    return address.href.replace(/\/+$/, "");
  }
  confine(ITS_HOSTS);
  return HUGGING_FACE;
}
