// Plays the clips of a ranking while they are in sight, and opens one larger at its best-matching moment.
let paused = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

const play = (video) => video.play().catch(() => {}); // a ranking that is replaced while it loads

const sight = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.dataset.seen = isIntersecting;
    if (isIntersecting && !paused) play(target);
    else target.pause();
  }
});

const label = (button) => {
  button.textContent = paused ? "Play clips" : "Pause clips";
  button.setAttribute("aria-pressed", String(paused));
};

const start = () => {
  sight.disconnect();
  for (const video of element.querySelectorAll(".card video")) {
    video.muted = true;
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
  dialog.querySelector("p").textContent =
    `${button.dataset.caption} (best match at ${moment.toFixed(1)} s)`;
  video.onloadedmetadata = () => {
    video.currentTime = moment;
    if (!paused) play(video);
  };
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

watch("value", start);
start();
