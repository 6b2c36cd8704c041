import { defineConfig } from "vite";

/**
 * What the page may do. What it may connect to is narrowed by page/hub.ts when the server for models is known; until then it
 * connects to nothing.
 */
const POLICY = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  // A worker keeps to the page's policy only if its script is a blob, which imports the real one.
  "worker-src 'self' blob:",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self' https: http:",
  "base-uri 'none'",
  "form-action 'none'",
];

// The page and its worker, as a folder that any web server can serve from any path.
export default defineConfig({
  root: "page",
  base: "./",
  publicDir: "../../target/web-public",
  build: { outDir: "../../target/web", emptyOutDir: true, target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
  plugins: [
    {
      name: "content-security-policy",
      // In development the bundler's own client is an inline script.
      apply: "build",
      transformIndexHtml: () => [
        { tag: "meta", attrs: { "http-equiv": "Content-Security-Policy", content: POLICY.join("; ") }, injectTo: "head-prepend" },
      ],
    },
  ],
});
