import { defineConfig } from "vite";

// Everything is embedded in the binary and served from `/`; the API is the same origin. For `npm run dev`, a running platform answers.
export default defineConfig({
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: { outDir: "dist", assetsInlineLimit: 0, chunkSizeWarningLimit: 800 },
  server: { proxy: { "^/(api|apis|diolkos|version)": "http://127.0.0.1:7070" } },
});
