// One entry of the browser's history for each thing the reader does. Streamlit adds one for every change of the URL;
// those that the page makes by itself, as when it fills in the defaults, replace the present entry instead.
(() => {
  const push = history.pushState.bind(history), replace = history.replaceState.bind(history);
  let acted = false; // by the reader, since the latest entry
  for (const kind of ["pointerdown", "keydown"]) addEventListener(kind, () => (acted = true), { capture: true });
  addEventListener("popstate", () => (acted = false), { capture: true });
  history.pushState = (...change) => {
    (acted ? push : replace)(...change);
    acted = false;
  };
})();
