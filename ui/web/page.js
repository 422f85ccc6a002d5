// What all tabs share: the address says what is shown, and what changes is said to those who cannot see it.
const names = %s;
const alone = ["own", "about"]; // tabs that are all that their address says

const tabShown = () =>
  document.querySelector("button[role=tab][aria-selected=true][data-tab-id]")?.dataset.tabId ?? "search";

const address = () => {
  const tab = tabShown();
  const shown = document.querySelector(`[data-link-of="${tab}"]`)?.dataset.link;
  if (shown === undefined && !alone.includes(tab)) return; // it is on its way
  const parameters = new URLSearchParams(location.search);
  for (const name of names) parameters.delete(name);
  if (tab !== "search") parameters.set("tab", tab);
  for (const [name, value] of new URLSearchParams(shown)) parameters.set(name, value);
  const query = parameters.size ? `?${parameters}` : "";
  if (query === location.search) return;
  history.replaceState(history.state, "", location.pathname + query + location.hash);
  // A Space stands in a frame, whose page takes the parameters over.
  if (window.parent !== window) window.parent.postMessage({ queryString: query.slice(1) }, "https://huggingface.co");
};

const say = (sentence) => {
  const heard = element.querySelector("[role=status]");
  if (sentence && heard.textContent !== sentence) heard.textContent = sentence;
};

const copy = async (button) => {
  address();
  try {
    await navigator.clipboard.writeText(location.href);
  } catch {
    window.prompt("Copy this link:", location.href); // without https, browsers give the clipboard to nobody
    return;
  }
  say("The link is copied.");
  button.textContent = "Link copied";
  setTimeout(() => (button.textContent = "Copy link"), 3000);
};

// Gradio tries to reconnect by itself, and says so for some seconds; this stays until something is answered.
const lost = element.querySelector(".lost");
const { fetch } = window;
window.fetch = async (...request) => {
  try {
    const answer = await fetch(...request);
    lost.hidden = true;
    return answer;
  } catch (error) {
    if (error.name === "TypeError") lost.hidden = false; // nothing was answered; what was called off is no error
    throw error;
  }
};

window.dits = {
  address: () => setTimeout(address, 0), // once the tab that was chosen is the one that is shown
  say,
  shown(part) {
    say(part.querySelector("[data-said]")?.dataset.said);
    window.dits.address();
  },
};

element.querySelector("button.skip").addEventListener("click", () => {
  const panel = [...document.querySelectorAll("[role=tabpanel]")].find((panel) => panel.offsetParent);
  const target = panel?.querySelector("[data-said]") ?? panel;
  target?.setAttribute("tabindex", "-1");
  target?.focus();
});

document.addEventListener("click", ({ target }) => target.matches?.("button.copy") && copy(target));

// Gradio writes what a group of choices is for beside it, where screen readers do not look.
const nameGroups = () => {
  for (const group of document.querySelectorAll("fieldset:not([aria-label])")) {
    const name = group.querySelector('[data-testid="block-info"]')?.textContent.trim();
    if (name) group.setAttribute("aria-label", name);
  }
};
new MutationObserver(nameGroups).observe(document.body, { childList: true, subtree: true });
nameGroups();

// Arrow keys, Home and End go from tab to tab, as everywhere; a tab that a telephone hides in a menu is left out.
document.addEventListener("keydown", (event) => {
  const tabs = [...document.querySelectorAll("button[role=tab][data-tab-id]")].filter((tab) => tab.offsetParent);
  const at = tabs.indexOf(event.target);
  const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 }[event.key];
  if (at < 0 || to === undefined) return;
  event.preventDefault();
  const tab = tabs.at(to) ?? tabs[0];
  tab.focus();
  tab.click();
});
