// Draws panels (a heading, a note and a Plotly figure each) into an element: with a step slider and a play button where
// a figure has frames, thumbnails on hover, downloads, and a callback for chosen points. The page and the report share it.

const drawPanels = async (root, panels, { plotly, source, onChoose, dark }) => {
  const drawing = (root.drawing = {}); // whoever draws later takes the place over
  if (!panels.length) return replace();
  if (!root.querySelector(".panel")) replace(notice("Loading the figures …"));
  let Plotly;
  try {
    Plotly = await plotly();
  } catch (error) {
    return replace(notice(`The figures cannot be drawn, for ${error.message}: reload the page.`));
  }
  if (root.drawing !== drawing) return;
  replace(...panels.map((panel) => panelElement(panel)));
  const resized = new ResizeObserver((entries) => entries.forEach(({ target }) => fit(target)));
  for (const [at, panel] of panels.entries()) {
    if (root.drawing !== drawing) return;
    await draw(root.children[at], panel);
  }

  function replace(...elements) {
    for (const plot of root.querySelectorAll(".plot")) {
      plot.stop?.();
      if (plot.data) window.Plotly.purge(plot);
    }
    root.replaceChildren(...elements);
  }

  function notice(sentence) {
    const made = text("p", sentence);
    made.className = "notice";
    made.setAttribute("role", "status");
    return made;
  }

  function panelElement(panel) {
    const figure = document.createElement("figure");
    figure.className = `panel ${panel.wide ? "wide" : ""}`;
    figure.dataset.name = panel.name;
    const head = document.createElement("figcaption");
    head.append(text("h3", panel.heading), tools(figure, panel));
    const plot = document.createElement("div");
    plot.className = "plot";
    plot.style.minHeight = `${styled(panel).layout.height}px`; // so that the page does not jump
    plot.setAttribute("role", "group"); // its buttons are for everybody; what is drawn is said by the description
    plot.setAttribute("aria-label", panel.description);
    figure.append(head, plot, text("p", panel.note));
    return figure;
  }

  async function draw(figure, panel) {
    const plot = figure.querySelector(".plot");
    const shown = styled(panel);
    await Plotly.newPlot(plot, shown.data, shown.layout, {
      displaylogo: false,
      modeBarButtonsToRemove: ["toImage", "autoScale2d", "toggleSpikelines"],
    });
    for (const drawn of plot.querySelectorAll(".main-svg")) drawn.setAttribute("aria-hidden", "true");
    plot.fitted = plot.offsetWidth; // it has just been drawn to this width
    resized.observe(plot);
    if (shown.frames?.length > 1) await addSteps(plot, shown);
    addThumbnails(figure, plot);
    const chosen = (event) => {
      const points = (event?.points ?? []).map((point) => point.customdata?.slice(0, 3)).filter(Boolean);
      if (points.length) onChoose?.(panel.name, points);
    };
    plot.on("plotly_click", chosen);
    plot.on("plotly_selected", chosen);
  }

  // A figure that was drawn in a tab nobody looked at gets its width when somebody does.
  function fit(plot) {
    if (plot.data && plot.offsetWidth && plot.offsetWidth !== plot.fitted) Plotly.Plots.resize(plot);
    plot.fitted = plot.offsetWidth;
  }

  // The figure in the page's colours; a slider and buttons of its own are replaced by those of the page.
  function styled(panel) {
    const { data, layout, frames } = dark() ? recoloured(panel.figure, panel.dark) : panel.figure;
    const { sliders, updatemenus, ...own } = layout;
    const rest = { ...own, legend: { ...own.legend, ...legend(own) }, autosize: true };
    if (matchMedia("(pointer: coarse)").matches) rest.dragmode = false; // fingers scroll the page
    if (!sliders) return { data, frames, layout: { ...rest, height: flat(rest, rest.height) } };
    const names = sliders[0].steps.map((step) => step.label);
    const spare = Math.max(0, (rest.margin?.b ?? 60) - 60);
    const margin = { ...rest.margin, b: (rest.margin?.b ?? 60) - spare };
    const height = flat(rest, rest.height - spare);
    return { data, frames, names, at: sliders[0].active, layout: { ...rest, margin, height } };
  }

  // On a telephone a legend has two columns.
  function legend(layout) {
    if (root.clientWidth > 520) return {};
    return { x: layout.scene ? 0 : -0.2, entrywidth: 0.5, entrywidthmode: "fraction", font: { size: 11 } };
  }

  // The height of a figure whose axes have one scale: on a telephone, no more than its width asks for.
  function flat(layout, height) {
    return layout.yaxis?.scaleanchor ? Math.min(height, 1.15 * root.clientWidth + 60) : height;
  }

  // A copy of a figure with other colours, whether they are written "#rrggbb" or "rgba(r,g,b,a)".
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
      const still = { mode: "immediate", transition: { duration: 0 }, frame: { duration: 0, redraw: true } };
      return Plotly.animate(plot, [frames[step].name], still).catch(() => {}); // a later step took its place
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
      const paper = getComputedStyle(document.body).backgroundColor; // the figure's own is clear
      const shown = { data: plot.data, layout: { ...plot.layout, paper_bgcolor: paper } };
      return Plotly.downloadImage(shown, { format, filename: panel.name, width, height, scale: format === "png" ? 2 : 1 });
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

  // A page of its own that works offline. Its tags are put together, for this script may stand in a page itself.
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
    const made = document.createElement(tag);
    if (tag === "button") made.type = "button";
    made.textContent = content ?? "";
    return made;
  }
};
