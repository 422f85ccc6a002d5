// Plays the clips of a ranking, and opens one larger at its best-matching moment.
const still = window.matchMedia("(prefers-reduced-motion: reduce)").matches;

const start = () => {
  for (const video of element.querySelectorAll(".card video")) {
    video.muted = true;
    if (still) {
      video.autoplay = false;
      video.pause();
    } else {
      video.play().catch(() => {}); // a ranking that is replaced while it loads
    }
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
    if (!still) video.play().catch(() => {});
  };
  video.src = button.dataset.video;
  dialog.onclose = () => video.pause();
  dialog.showModal();
};

element.addEventListener("click", (event) => {
  const button = event.target.closest("button.open");
  if (button) open(button);
  if (event.target.matches("dialog.viewer")) event.target.close(); // a click beside the clip
});

watch("value", start);
start();
