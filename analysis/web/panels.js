// Draws panels (a heading, a note and a Plotly figure) into an element, for the page and the report. Panels have
// downloads, thumbnails on hover and a callback for chosen points. Figures with frames have a slider and a play button.

const drawPanels = async (root, panels, { plotly, source, onChoose, dark }) => {
  const drawing = (root.drawing = {}); // a later call replaces this one
  if (!panels.length) return replace();
  if (!root.querySelector(".panel")) replace(notice("Loading the figures …"));
  let Plotly;
  try {
    Plotly = await plotly();
  } catch (error) {
    return replace(notice(`The figures cannot be drawn (${error.message}). Reload the page.`));
  }
  if (root.drawing !== drawing) return;
  replace(...panels.map((panel) => panelElement(panel)));
  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => fit(target)));
  for (const [index, panel] of panels.entries()) {
    if (root.drawing !== drawing) return;
    await draw(root.children[index], panel);
  }

  function replace(...elements) {
    for (const plot of root.querySelectorAll(".plot")) {
      plot.stop?.();
      if (plot.data) window.Plotly.purge(plot);
    }
    root.replaceChildren(...elements);
  }

  function notice(sentence) {
    const paragraph = text("p", sentence);
    paragraph.className = "notice";
    paragraph.setAttribute("role", "status");
    return paragraph;
  }

  function panelElement(panel) {
    const figure = document.createElement("figure");
    figure.className = `panel ${panel.wide ? "wide" : ""}`;
    figure.dataset.name = panel.name;
    const head = document.createElement("figcaption");
    head.append(text("h3", panel.heading), tools(figure, panel));
    const plot = document.createElement("div");
    plot.className = "plot";
    plot.style.minHeight = `${styled(panel).layout.height}px`; // prevents layout shifts
    plot.setAttribute("role", "group"); // not "img": its buttons must stay accessible
    plot.setAttribute("aria-label", panel.description);
    figure.append(head, plot, text("p", panel.note));
    return figure;
  }

  async function draw(figure, panel) {
    const plot = figure.querySelector(".plot");
    const drawable = styled(panel);
    await Plotly.newPlot(plot, drawable.data, drawable.layout, {
      displaylogo: false,
      modeBarButtonsToRemove: ["toImage", "autoScale2d", "toggleSpikelines"],
    });
    for (const svg of plot.querySelectorAll(".main-svg")) svg.setAttribute("aria-hidden", "true");
    plot.fitted = plot.offsetWidth;
    resized.observe(plot);
    if (drawable.frames?.length > 1) await addSteps(plot, drawable);
    addThumbnails(figure, plot);
    const choose = (event) => {
      const points = (event?.points ?? []).map((point) => point.customdata?.slice(0, 3)).filter(Boolean);
      if (points.length) onChoose?.(panel.name, points);
    };
    plot.on("plotly_click", choose);
    plot.on("plotly_selected", choose);
  }

  // A figure that was drawn in a hidden tab has no width until the tab is shown.
  function fit(plot) {
    if (plot.data && plot.offsetWidth && plot.offsetWidth !== plot.fitted) Plotly.Plots.resize(plot);
    plot.fitted = plot.offsetWidth;
  }

  // The figure in the page's colours. The page's slider and buttons replace the figure's own.
  function styled(panel) {
    const { data, layout, frames } = dark() ? recoloured(panel.figure, panel.dark) : panel.figure;
    const { sliders, updatemenus, ...own } = layout;
    const rest = { ...own, legend: { ...own.legend, ...legend(own) }, autosize: true };
    if (matchMedia("(pointer: coarse)").matches) rest.dragmode = false; // touch scrolls the page
    if (!sliders) return { data, frames, layout: { ...rest, height: flat(rest, rest.height) } };
    const names = sliders[0].steps.map((step) => step.label);
    const spare = Math.max(0, (rest.margin?.b ?? 60) - 60);
    const margin = { ...rest.margin, b: (rest.margin?.b ?? 60) - spare };
    const height = flat(rest, rest.height - spare);
    return { data, frames, names, at: sliders[0].active, layout: { ...rest, margin, height } };
  }

  // On a phone, a legend has two columns.
  function legend(layout) {
    if (root.clientWidth > 520) return {};
    return { x: layout.scene ? 0 : -0.2, entrywidth: 0.5, entrywidthmode: "fraction", font: { size: 11 } };
  }

  // The height of a figure. If its axes have one scale, its width limits the height on a phone.
  function flat(layout, height) {
    return layout.yaxis?.scaleanchor ? Math.min(height, 1.15 * root.clientWidth + 60) : height;
  }

  // A copy of a figure with other colours, written as "#rrggbb" or "rgba(r,g,b,a)".
  function recoloured(value, colours) {
    if (typeof value === "string") return colours[value] ?? recolouredRgba(value, colours);
    if (Array.isArray(value)) return value.map((part) => recoloured(part, colours));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, part]) => [name, recoloured(part, colours)]));
  }

  function recolouredRgba(value, colours) {
    const [, red, green, blue, opacity] = value.match(/^rgba\((\d+),(\d+),(\d+),([\d.]+)\)$/) ?? [];
    if (!opacity) return value;
    const hex = [red, green, blue].map((part) => Number(part).toString(16).padStart(2, "0")).join("");
    const other = Object.entries(colours).find(([name]) => name.toLowerCase() === `#${hex}`)?.[1];
    if (!other) return value;
    const parts = [1, 3, 5].map((start) => parseInt(other.slice(start, start + 2), 16));
    return `rgba(${parts.join(",")},${opacity})`;
  }

  async function addSteps(plot, { frames, names, at }) {
    await Plotly.addFrames(plot, frames);
    const bar = document.createElement("div");
    bar.className = "steps";
    const play = text("button", "Play");
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: 0, max: frames.length - 1, value: at });
    slider.setAttribute("aria-label", "Step");
    slider.setAttribute("aria-valuetext", names[at]);
    const name = text("output", names[at]);
    let timer = null;
    const show = (step) => {
      slider.value = step;
      name.textContent = names[step];
      slider.setAttribute("aria-valuetext", names[step]);
      const options = { mode: "immediate", transition: { duration: 0 }, frame: { duration: 0, redraw: true } };
      return Plotly.animate(plot, [frames[step].name], options).catch(() => {}); // a later step replaced this one
    };
    const stop = () => {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    };
    plot.stop = stop;
    slider.addEventListener("input", () => (stop(), show(Number(slider.value))));
    play.addEventListener("click", () => {
      if (timer) return stop();
      play.textContent = "Stop";
      let step = 0;
      show(step);
      timer = setInterval(() => {
        show(++step);
        if (step === frames.length - 1) stop();
      }, 500);
    });
    bar.append(play, slider, name);
    plot.after(bar);
  }

  function addThumbnails(figure, plot) {
    const picture = document.createElement("img");
    picture.className = "thumbnail";
    picture.alt = "";
    picture.hidden = true;
    figure.append(picture);
    plot.on("plotly_hover", ({ points, event }) => {
      const address = points[0].customdata?.[3];
      picture.hidden = !address;
      if (!address) return;
      picture.src = address;
      const box = figure.getBoundingClientRect();
      picture.style.left = `${Math.min(Math.max(0, event.clientX - box.left + 16), box.width - 130)}px`;
      picture.style.top = `${event.clientY - box.top + 16}px`;
    });
    plot.on("plotly_unhover", () => (picture.hidden = true));
  }

  function tools(figure, panel) {
    const bar = document.createElement("span");
    bar.className = "tools";
    const image = (format) => {
      const plot = figure.querySelector(".plot");
      const { width, height } = plot.getBoundingClientRect();
      const paper = getComputedStyle(document.body).backgroundColor; // the figure's own is transparent
      const copy = { data: plot.data, layout: { ...plot.layout, paper_bgcolor: paper } };
      return Plotly.downloadImage(copy, { format, filename: panel.name, width, height, scale: format === "png" ? 2 : 1 });
    };
    const kinds = {
      PNG: () => image("png"),
      SVG: () => image("svg"),
      HTML: async () => save(`${panel.name}.html`, "text/html", page(panel, await source())),
      CSV: () => save(`${panel.name}.csv`, "text/csv", panel.csv),
    };
    for (const [kind, run] of Object.entries(kinds)) {
      const button = text("button", kind);
      button.setAttribute("aria-label", `Download ${panel.heading} as ${kind}`);
      button.addEventListener("click", run);
      bar.append(button);
    }
    return bar;
  }

  // A separate page that works offline. Script tags are built from parts, since this script may be inline in a page.
  function page(panel, script) {
    const safe = (value) => JSON.stringify(value).replaceAll("<", "\\u003c");
    const inline = (code) => `<${"script"}>${code}<${"/script"}>`;
    const title = text("span", panel.heading).innerHTML;
    const note = text("span", panel.note).innerHTML;
    const drawing =
      `const figure = ${safe(panel.figure)};` +
      `Plotly.newPlot("plot", figure.data, figure.layout, { responsive: true, displaylogo: false })` +
      `.then(() => Plotly.addFrames("plot", figure.frames ?? []));`;
    return [
      `<!doctype html><html lang="en"><meta charset="utf-8"><title>${title}</title>`,
      `<meta name="viewport" content="width=device-width, initial-scale=1">`,
      `<body style="font-family:system-ui;margin:1rem"><h1 style="font-size:1.1rem">${title}</h1>`,
      `<div id="plot"></div><p>${note}</p>`,
      inline(script.replaceAll("</" + "script", "<\\/script")),
      inline(drawing),
      `</body></html>`,
    ].join("\n");
  }

  function save(name, type, content) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
  }

  function text(tag, content) {
    const element = document.createElement(tag);
    if (tag === "button") element.type = "button";
    element.textContent = content ?? "";
    return element;
  }
};
