// Inside Airflow's frame these pages are as dark or light as Airflow is; elsewhere the system decides.
(() => {
  const own = document.documentElement;
  if (window.parent === window) return;
  own.dataset.embedded = "";
  try {
    const outer = window.parent.document.documentElement;
    const follow = () => {
      if (outer.classList.contains("dark")) own.dataset.theme = "dark";
      else if (outer.classList.contains("light")) own.dataset.theme = "light";
      const ground = getComputedStyle(outer.ownerDocument.body).backgroundColor;
      if (/^rgb\(/.test(ground)) own.style.setProperty("--ground", ground); // rgba may be see-through
    };
    follow();
    new MutationObserver(follow).observe(outer, { attributes: true, attributeFilter: ["class"] });
  } catch {
    // A frame of another origin is refused by frame-ancestors before it comes to this.
  }
})();
