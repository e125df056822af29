// What makes the pages live: one held call for ledger events, clocks, and focus that does not get lost.
(() => {
  "use strict";

  const WAIT = 25; // seconds that the server holds a call
  const GENTLE = 700; // milliseconds between two refreshes
  const body = document.body;
  const announce = document.getElementById("announce");
  const connection = document.getElementById("connection");

  // --- events ------------------------------------------------------------------------------------------

  const pause = (milliseconds) => new Promise((resume) => setTimeout(resume, milliseconds));

  const shown = () =>
    document.hidden
      ? new Promise((resume) => {
          const look = () => {
            if (document.hidden) return;
            document.removeEventListener("visibilitychange", look);
            resume();
          };
          document.addEventListener("visibilitychange", look);
        })
      : Promise.resolve();

  const concerns = (entry) =>
    entry.request_id !== null && (!body.dataset.request || entry.request_id === body.dataset.request);

  const refresh = () => {
    if ("reload" in body.dataset) location.reload();
    else htmx.trigger(document.getElementById("list") ?? body, "approvals:changed");
  };

  async function follow() {
    let after = Number(body.dataset.after);
    let failures = 0;
    for (;;) {
      await shown(); // hidden pages hold no connection: a browser has only a few per server
      try {
        const answer = await fetch(`${body.dataset.events}?after=${after}&wait=${WAIT}`, {
          credentials: "same-origin",
          headers: { Accept: "application/json" },
        });
        if (answer.status === 401) {
          logIn(false);
          return;
        }
        if (!answer.ok) throw new Error(String(answer.status));
        const news = await answer.json();
        after = news.next;
        failures = 0;
        connection.hidden = true;
        if (news.entries.some(concerns)) {
          refresh();
          await pause(GENTLE);
        }
      } catch {
        failures += 1;
        if (failures === 2) {
          connection.textContent = "The server does not answer. This page may be out of date.";
          connection.hidden = false;
        }
        await pause(Math.min(15000, 500 * 2 ** failures) * (0.5 + Math.random() / 2));
      }
    }
  }

  // --- clocks ------------------------------------------------------------------------------------------

  const skew = body.dataset.now ? Date.parse(body.dataset.now) - Date.now() : 0;

  function span(milliseconds) {
    const seconds = Math.max(0, Math.floor(milliseconds / 1000));
    const [days, hours, minutes] = [seconds / 86400, (seconds % 86400) / 3600, (seconds % 3600) / 60].map(Math.floor);
    if (days) return hours ? `${days} d ${hours} h` : `${days} d`;
    if (hours) return minutes ? `${hours} h ${minutes} min` : `${hours} h`;
    if (minutes >= 5) return `${minutes} min`;
    return minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
  }

  function tick() {
    const now = Date.now() + skew;
    for (const clock of document.querySelectorAll("time[data-left], time[data-ago]")) {
      const at = Date.parse(clock.dateTime);
      let text;
      if ("left" in clock.dataset) text = at > now ? `${span(at - now)} left` : "time is up";
      else text = now - at < 10000 ? "just now" : `${span(now - at).replace(/ \d+ s$/, "")} ago`;
      if (clock.textContent !== text) clock.textContent = text;
    }
  }

  // --- swaps -------------------------------------------------------------------------------------------

  let focused = null; // what had the focus in a part that is about to be replaced

  document.addEventListener("htmx:oobBeforeSwap", (event) => {
    const { target, fragment } = event.detail;
    const next = fragment.firstElementChild ?? fragment;
    // What somebody types into stays as it is unless the part itself has changed.
    if (next.dataset && target.dataset.stamp && next.dataset.stamp === target.dataset.stamp) {
      event.detail.shouldSwap = false;
      return;
    }
    const active = document.activeElement;
    if (target.contains(active)) {
      focused = { id: active.id, part: target.id, from: active.selectionStart, to: active.selectionEnd };
    }
    const typed = [...target.querySelectorAll("textarea, input:not([type=hidden])")];
    for (const field of typed.filter((each) => each.value !== each.defaultValue)) {
      const same = next.querySelector?.(`#${CSS.escape(field.id)}`);
      if (!same) continue;
      if (same.matches("textarea")) same.textContent = field.value;
      else same.setAttribute("value", field.value);
      same.closest("details")?.setAttribute("open", "");
    }
  });

  document.addEventListener("htmx:oobAfterSwap", () => {
    if (focused) {
      const again = document.getElementById(focused.id || focused.part) ?? document.getElementById(focused.part);
      again?.focus({ preventScroll: true });
      if (focused.from != null) again?.setSelectionRange?.(focused.from, focused.to);
    }
    focused = null;
    tell();
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    if (event.detail.target?.id === "page" || event.detail.elt?.id === "page") {
      (document.getElementById("notice") ?? document.getElementById("page"))?.focus();
    }
    tick();
    tell();
  });

  document.addEventListener("htmx:responseError", (event) => {
    if (event.detail.xhr.status === 401) logIn(event.detail.requestConfig?.verb === "post");
  });

  // --- a login that ends -------------------------------------------------------------------------------

  const DRAFT = `approvals ${location.pathname}`;
  const person = document.querySelector(".who b")?.textContent;
  const answers = () =>
    [...document.querySelectorAll("form[method=post] :is(textarea, input)")].filter(
      (field) => field.type !== "hidden" || ["reason", "emergency"].includes(field.name),
    );

  // Leads to the login and back; what was typed waits in this tab, for the same person alone.
  function logIn(answered) {
    const typed = answers().filter((field) => (field.type === "hidden" ? field.value : field.value !== field.defaultValue));
    const words = Object.fromEntries(typed.map((field) => [field.id || field.name, field.value]));
    if (answered || typed.length) sessionStorage.setItem(DRAFT, JSON.stringify({ person, words }));
    location.reload();
  }

  function takeUp() {
    const kept = JSON.parse(sessionStorage.getItem(DRAFT) ?? "null");
    sessionStorage.removeItem(DRAFT);
    if (!kept || kept.person !== person) return;
    for (const [id, words] of Object.entries(kept.words)) {
      const field = answers().find((each) => each.id === id);
      if (!field) continue;
      field.value = words;
      field.closest("details")?.setAttribute("open", "");
    }
    const notice = document.createElement("p");
    Object.assign(notice, { id: "notice", className: "notice notice-warn", tabIndex: -1 });
    notice.setAttribute("role", "status");
    notice.textContent = "Your login had ended, so nothing was recorded. What you typed is still here: answer again.";
    document.getElementById("notice")?.remove();
    document.getElementById("page").prepend(notice);
    notice.focus();
  }

  let told = document.querySelector("[data-announce]")?.dataset.announce;

  function tell() {
    const news = document.querySelector("[data-announce]")?.dataset.announce;
    if (news && news !== told) announce.textContent = news;
    told = news;
  }

  // --- small things ------------------------------------------------------------------------------------

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-airflow]");
    if (!link || window.parent === window) return;
    // Airflow within its own frame would be a hall of mirrors: let the outer page go there.
    const outer = window.parent.document.createElement("a");
    outer.href = link.href;
    outer.click();
    event.preventDefault();
  });

  window.addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll(".card details:not(.more)")) details.open = true;
  });

  const address = new URL(location.href);
  if (address.searchParams.has("done")) {
    address.searchParams.delete("done");
    history.replaceState(history.state, "", address);
    document.getElementById("notice")?.focus();
  }

  takeUp();
  tick();
  setInterval(tick, 1000);
  if (body.dataset.events) follow();
})();
