// Switches curves on and off and reads values from them. Everything shown was computed before: each
// chart carries its points with their places in the drawing and their values as text. Without this
// script the drawings stand as they are, with their own legends.
"use strict";

const SVG = "http://www.w3.org/2000/svg";

function setUp(figure) {
  const data = JSON.parse(figure.dataset.chart);
  const svg = figure.querySelector(".card svg");
  const controls = figure.querySelector(".controls");
  const chart = {
    data,
    svg,
    slider: controls.querySelector("input"),
    place: controls.querySelector("output"),
    buttons: [...controls.querySelectorAll("button[data-curve]")],
    guide: svg.appendChild(document.createElementNS(SVG, data.by === "x" ? "line" : "circle")),
  };
  chart.guide.setAttribute("class", "guide");
  chart.stops = data.by === "x" ? stopsOf(data) : [];
  crop(chart);
  chart.buttons.forEach((button, number) => {
    button.addEventListener("click", () => toggle(chart, number, !isOn(chart, number)));
    if (data.by === "point") button.addEventListener("focus", () => readMethod(chart, number));
  });
  controls.querySelector("button.all").addEventListener("click", () => {
    chart.buttons.forEach((_, number) => toggle(chart, number, true));
  });
  const follow = (event) => (data.by === "x" ? followX : followPoint)(chart, placeOf(svg, event));
  svg.addEventListener("pointermove", follow);
  svg.addEventListener("pointerdown", follow);
  if (chart.slider) {
    chart.slider.max = Math.max(chart.stops.length - 1, 0);
    chart.slider.addEventListener("input", () => readAt(chart, Number(chart.slider.value)));
    readAt(chart, chart.stops.length - 1);
  } else {
    chart.buttons.forEach((_, number) => showValue(chart, number, scoreOf(data.curves[number])));
  }
  controls.hidden = false;
}

// The places along the x axis at which any curve has a point, from left to right.
function stopsOf(data) {
  const stops = new Map();
  for (const curve of data.curves)
    for (const [, x, , at] of curve.points) if (!stops.has(x)) stops.set(x, at);
  return [...stops].sort((one, other) => one[0] - other[0]).map(([x, at]) => ({ x, at }));
}

// On a screen the buttons are the legend; on paper the drawing's own is.
function crop(chart) {
  const { svg, data } = chart;
  const whole = svg.getAttribute("viewBox");
  if (!data.height) return;
  const [x, y, width] = whole.split(" ");
  const cropped = `${x} ${y} ${width} ${data.height}`;
  svg.setAttribute("viewBox", cropped);
  window.addEventListener("beforeprint", () => svg.setAttribute("viewBox", whole));
  window.addEventListener("afterprint", () => svg.setAttribute("viewBox", cropped));
}

function placeOf(svg, event) {
  return new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
}

function isOn(chart, number) {
  return chart.buttons[number].getAttribute("aria-pressed") === "true";
}

function toggle(chart, number, on) {
  chart.buttons[number].setAttribute("aria-pressed", String(on));
  const parts = chart.svg.querySelectorAll(`[id^="${chart.data.curves[number].id}"]`);
  for (const part of parts) part.style.display = on ? "" : "none";
  if (chart.slider) readAt(chart, Number(chart.slider.value));
}

function showValue(chart, number, text) {
  chart.buttons[number].querySelector(".value").textContent = text;
}

function followX(chart, place) {
  const gaps = chart.stops.map((stop) => Math.abs(stop.x - place.x));
  const nearest = gaps.indexOf(Math.min(...gaps));
  if (nearest < 0) return;
  chart.slider.value = nearest;
  readAt(chart, nearest);
}

function readAt(chart, number) {
  const stop = chart.stops[number];
  if (!stop) return;
  const said = [];
  chart.data.curves.forEach((curve, index) => {
    const point = curve.points.find(([, x]) => x === stop.x);
    const text = point ? point[4] : "\u2013";
    showValue(chart, index, text);
    if (isOn(chart, index)) said.push(`${nameOf(chart, index)}: ${text}`);
  });
  chart.place.textContent = stop.at;
  chart.slider.value = number;
  chart.slider.setAttribute("aria-valuetext", `${stop.at}. ${said.join("; ")}`);
  const [, top, , bottom] = chart.data.boxes[0];
  draw(chart, { x1: stop.x, x2: stop.x, y1: top, y2: bottom });
}

function nameOf(chart, number) {
  return chart.buttons[number].querySelector(".name").textContent;
}

function followPoint(chart, place) {
  let best = null;
  chart.data.curves.forEach((curve, number) => {
    if (!isOn(chart, number)) return;
    for (const [, x, y, at, text] of curve.points) {
      const gap = Math.hypot(x - place.x, y - place.y);
      if (!best || gap < best.gap) best = { gap, x, y, number, text: `${at}: ${text}` };
    }
  });
  if (!best) return;
  chart.place.textContent = `${nameOf(chart, best.number)} \u2013 ${best.text}`;
  draw(chart, { cx: best.x, cy: best.y, r: 9 });
}

function readMethod(chart, number) {
  const points = chart.data.curves[number].points.map(([, , , at]) => at);
  const score = scoreOf(chart.data.curves[number]);
  chart.place.textContent = `${nameOf(chart, number)} \u2013 ${score}; ${points.join("; ")}`;
}

function scoreOf(curve) {
  return curve.points.length ? curve.points[0][4] : "\u2013";
}

function draw(chart, attributes) {
  for (const [name, value] of Object.entries(attributes)) chart.guide.setAttribute(name, value);
}

for (const figure of document.querySelectorAll("figure[data-chart]")) setUp(figure);

// A box that holds more than it shows fades at the end at which it goes on.
function markEnds(box) {
  const rest = box.scrollWidth - box.clientWidth - box.scrollLeft;
  box.classList.toggle("goes-left", box.scrollLeft > 1);
  box.classList.toggle("goes-right", rest > 1);
}
for (const box of document.querySelectorAll(".scroll, .card, pre")) {
  const watcher = new ResizeObserver(() => markEnds(box));
  for (const part of [box, ...box.children]) watcher.observe(part);
  box.addEventListener("scroll", () => markEnds(box), { passive: true });
}

// Browsers that do not know `::details-content` print what is folded only if it is open.
let folded = [];
window.addEventListener("beforeprint", () => {
  folded = [...document.querySelectorAll("details:not([open])")];
  for (const each of folded) each.open = true;
});
window.addEventListener("afterprint", () => {
  for (const each of folded) each.open = false;
});

// What a link points to inside something folded is unfolded; on paper everything is.
function unfold() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (let part = target; part; part = part.parentElement)
    if (part instanceof HTMLDetailsElement) part.open = true;
  if (target) target.scrollIntoView();
}
window.addEventListener("hashchange", unfold);
unfold();
