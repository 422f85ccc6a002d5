// Plays the clips of a ranking while they are in sight, and opens one larger at its best-matching moment. A clip that is
// a part of its file, from data-start to data-end, plays that part over and over, wherever it stands on the page.
let paused = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

const play = (video) => video.play().catch(() => {}); // a ranking that is replaced while it loads

const SOON = 0.08; // seconds before the end of a part at which it begins again
const times = new WeakMap();

const repeat = ({ target: video, type }) => {
  if (!video.dataset?.end || video.seeking) return;
  const [start, end, now] = [Number(video.dataset.start), Number(video.dataset.end), video.currentTime];
  const before = times.get(video) ?? start;
  times.set(video, now);
  const reached = before < end && now >= end - SOON && now - before < 1; // by playing: whoever seeks may look on
  if (!reached && type !== "ended") return;
  times.set(video, start);
  video.currentTime = start;
  if (!paused && video.dataset.seen !== "false") play(video);
};

const say = ({ target }) => {
  if (target.matches?.("video") && target.error) target.classList.add("failed");
};

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.seen = isIntersecting;
    if (isIntersecting && !paused) play(target);
    else target.pause();
  }
});

const label = (button) => {
  button.textContent = paused ? "Play clips" : "Pause clips";
};

// Whoever wants nothing to move sees each clip where it matches best.
const atItsMoment = (video) => {
  const moment = Number(video.closest("button").dataset.moment);
  const show = () => paused && !video.played.length && (video.currentTime = moment);
  if (video.readyState) show();
  else video.addEventListener("loadedmetadata", show, { once: true });
};

const start = () => {
  sight.disconnect();
  for (const video of element.querySelectorAll(".card video")) {
    video.muted = true;
    video.classList.toggle("failed", Boolean(video.error));
    if (paused && !video.dataset.start) atItsMoment(video);
    sight.observe(video);
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
    else delete video.dataset[name]; // of the clip before
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
  if (event.target.matches("dialog.viewer")) event.target.close(); // a click beside the clip
});

for (const moment of ["timeupdate", "pause", "ended"]) document.addEventListener(moment, repeat, true);
document.addEventListener("error", say, true);

watch("value", () => {
  start();
  window.dits?.shown(element);
});
start();
