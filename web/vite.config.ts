import { defineConfig } from "vite";

// The page and its worker, as a folder that any web server can serve from any path.
export default defineConfig({
  root: "page",
  base: "./",
  publicDir: "../../target/web-public",
  build: { outDir: "../../target/web", emptyOutDir: true, target: "es2022", assetsInlineLimit: 0 },
  worker: { format: "es" },
});
