// Builds the page into `dist/`: plain files that the hub serves under a strict policy, so nothing is inlined.
import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    license: { fileName: "licenses.md" }, // of what is in the bundle
    modulePreload: { polyfill: false },
  },
});
