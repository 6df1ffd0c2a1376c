// Builds the page into `dist/`: plain files that the hub serves under a strict policy, so nothing is inlined.
import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  build: {
    target: "es2022",
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
  },
});
