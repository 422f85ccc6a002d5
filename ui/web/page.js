// Shared by all tabs: the URL follows the state of the page, and changes are announced to screen readers.
const parameterNames = %s;
const withoutParameters = ["own", "about"]; // tabs whose URL has no other parameters

const tabShown = () =>
  document.querySelector("button[role=tab][aria-selected=true][data-tab-id]")?.dataset.tabId ?? "search";

const updateUrl = () => {
  const tab = tabShown();
  const link = document.querySelector(`[data-link-of="${tab}"]`)?.dataset.link;
  if (link === undefined && !withoutParameters.includes(tab)) return; // not loaded yet
  const parameters = new URLSearchParams(location.search);
  for (const name of parameterNames) parameters.delete(name);
  if (tab !== "search") parameters.set("tab", tab);
  for (const [name, value] of new URLSearchParams(link)) parameters.set(name, value);
  const query = parameters.size ? `?${parameters}` : "";
  if (query === location.search) return;
  history.replaceState(history.state, "", location.pathname + query + location.hash);
  // A Space runs in a frame; the outer page copies the parameters into its own URL.
  if (window.parent !== window) window.parent.postMessage({ queryString: query.slice(1) }, "https://huggingface.co");
};

const say = (sentence) => {
  const status = element.querySelector("[role=status]");
  if (sentence && status.textContent !== sentence) status.textContent = sentence;
};

const copy = async (button) => {
  updateUrl();
  try {
    await navigator.clipboard.writeText(location.href);
  } catch {
    window.prompt("Copy this link:", location.href); // without HTTPS there is no clipboard access
    return;
  }
  say("The link is copied.");
  button.textContent = "Link copied";
  setTimeout(() => (button.textContent = "Copy link"), 3000);
};

// Gradio reconnects by itself and shows this for some seconds only. Our message stays until the server answers.
const lost = element.querySelector(".lost");
const { fetch } = window;
window.fetch = async (...request) => {
  try {
    const answer = await fetch(...request);
    lost.hidden = true;
    return answer;
  } catch (error) {
    if (error.name === "TypeError") lost.hidden = false; // no answer; an aborted request is no error
    throw error;
  }
};

window.dits = {
  address: () => setTimeout(updateUrl, 0), // after the selected tab is shown
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

// Gradio puts the label of a radio group outside of its fieldset, so screen readers do not read it.
const nameGroups = () => {
  for (const group of document.querySelectorAll("fieldset:not([aria-label])")) {
    const name = group.querySelector('[data-testid="block-info"]')?.textContent.trim();
    if (name) group.setAttribute("aria-label", name);
  }
};
new MutationObserver(nameGroups).observe(document.body, { childList: true, subtree: true });
nameGroups();

// Arrow keys, Home and End move between tabs; tabs that a small screen hides in a menu are skipped.
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
