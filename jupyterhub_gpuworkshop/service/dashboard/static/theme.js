// Dark or light, as chosen on the hub's own pages; before anything is drawn.
(function () {
  "use strict";
  const KEY = "jupyterhub-bs-theme";
  const system = window.matchMedia("(prefers-color-scheme: dark)");

  function chosen() {
    try {
      const stored = window.localStorage.getItem(KEY);
      if (stored === "dark" || stored === "light") return stored;
    } catch {
      // A browser may keep nothing.
    }
    const { preferred } = document.documentElement.dataset;
    if (preferred) return preferred;
    return system.matches ? "dark" : "light";
  }

  function apply(theme) {
    document.documentElement.dataset.theme = theme;
    document.dispatchEvent(new CustomEvent("themechange", { detail: theme }));
  }

  apply(chosen());
  system.addEventListener("change", () => apply(chosen()));
  window.addEventListener("storage", (event) => {
    if (event.key === KEY) apply(chosen());
  });
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    if (!button) return;
    button.hidden = false;
    button.addEventListener("click", () => {
      const dark = document.documentElement.dataset.theme === "dark";
      const theme = dark ? "light" : "dark";
      try {
        window.localStorage.setItem(KEY, theme);
      } catch {
        // Then it holds for this page.
      }
      apply(theme);
    });
  });
})();
