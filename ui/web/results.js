// Plays the visible clips of a ranking, and opens a clip larger at its best moment. A clip with data-start and data-end
// repeats that segment of its file, everywhere on the page.
let paused = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

const play = (video) => video.play().catch(() => {}); // it fails if the ranking is replaced while it loads

const MARGIN = 0.08; // seconds before the end of a segment at which it restarts
const times = new WeakMap();

const repeat = ({ target: video, type }) => {
  if (!video.dataset?.end || video.seeking) return;
  const [start, end, now] = [Number(video.dataset.start), Number(video.dataset.end), video.currentTime];
  const before = times.get(video) ?? start;
  times.set(video, now);
  const reached = before < end && now >= end - MARGIN && now - before < 1; // by playing, not by seeking
  if (!reached && type !== "ended") return;
  times.set(video, start);
  video.currentTime = start;
  if (!paused && video.dataset.seen !== "false") play(video);
};

const markFailed = ({ target }) => {
  if (target.matches?.("video") && target.error) target.classList.add("failed");
};

const visibility = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.seen = isIntersecting;
    if (isIntersecting && !paused) play(target);
    else target.pause();
  }
});

const label = (button) => {
  button.textContent = paused ? "Play clips" : "Pause clips";
};

// With reduced motion, each clip shows its best moment.
const showBestMoment = (video) => {
  const moment = Number(video.closest("button").dataset.moment);
  const show = () => paused && !video.played.length && (video.currentTime = moment);
  if (video.readyState) show();
  else video.addEventListener("loadedmetadata", show, { once: true });
};

const start = () => {
  visibility.disconnect();
  for (const video of element.querySelectorAll(".card video")) {
    video.muted = true;
    video.classList.toggle("failed", Boolean(video.error));
    if (paused && !video.dataset.start) showBestMoment(video);
    visibility.observe(video);
  }
  element.querySelectorAll("button.pause").forEach(label);
};

const toggle = (button) => {
  paused = !paused;
  label(button);
  for (const video of element.querySelectorAll(".card video")) {
    if (paused) video.pause();
    else if (video.dataset.seen === "true") play(video);
  }
};

const open = (button) => {
  const dialog = element.querySelector("dialog.viewer");
  const video = dialog.querySelector("video");
  const moment = Number(button.dataset.moment);
  const small = button.querySelector("video");
  dialog.querySelector("p.said").textContent =
    `${button.dataset.caption} (best match at ${moment.toFixed(1)} s)`;
  video.onloadedmetadata = () => {
    video.currentTime = moment;
    if (!paused) play(video);
  };
  for (const name of ["start", "end"]) {
    if (name in small.dataset) video.dataset[name] = small.dataset[name];
    else delete video.dataset[name]; // from the previous clip
  }
  video.loop = !video.dataset.end;
  video.classList.remove("failed");
  video.poster = small.poster;
  video.src = button.dataset.video;
  dialog.onclose = () => video.pause();
  dialog.showModal();
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button.open");
  if (button) open(button);
  if (event.target.matches("button.pause")) toggle(event.target);
  if (event.target.matches("dialog.viewer")) event.target.close(); // a click outside the clip
});

for (const name of ["timeupdate", "pause", "ended"]) document.addEventListener(name, repeat, true);
document.addEventListener("error", markFailed, true);

watch("value", () => {
  start();
  window.dits?.shown(element);
});
start();
