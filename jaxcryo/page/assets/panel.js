// The types: whether they are seen, their thresholds, and what these give.

const own = (name, attributes = {}, ...children) => {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
};

const swatch = () => own("i", { className: "swatch" });
const three = (value) => value.toFixed(3);
const short = (value) => String(Math.round(value * 1000) / 1000);

const cards = types.map((type) => {
  const visible = own("input", { type: "checkbox", checked: true, ariaLabel: `Show ${type.name}` });
  const count = own("span", { className: "count", id: `count-${type.index}` });
  const scores = own("span", { className: "scores", id: `scores-${type.index}` });
  const slider = own("input", {
    type: "range", min: "0", max: String(highest), step: "any", id: `threshold-${type.index}`,
    ariaLabel: `Threshold of ${type.name}`,
  });
  const number = own("input", {
    type: "number", min: short(type.lowest), max: short(highest), step: "0.01", id: `number-${type.index}`,
    ariaLabel: `Threshold of ${type.name} as a number`,
  });
  const chart = own("div");
  const card = own("article", { className: "type" },
    own("header", {}, own("label", { title: `radius ${type.radius} Å` }, visible, swatch(), own("span", {}, type.name)), scores, count),
    own("div", { className: "set" }, own("div", {}, chart, slider), number));
  card.style.setProperty("--own", css(type.color));
  if (type.leftOut) {
    card.append(own("p", { className: "warn" },
      `Only the best ${type.picks.count} candidates are shown, ${type.leftOut} more are not: thresholds end at ${short(type.lowest)}.`));
  }
  document.getElementById("types").append(card);
  const moveLine = drawChart(type, chart);
  visible.addEventListener("change", () => {
    change({ visible: state.visible.map((old, i) => (i === type.index ? visible.checked : old)) });
  });
  slider.addEventListener("input", () => setThreshold(type.index, Number(slider.value)));
  slider.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -0.005, ArrowDown: -0.005, ArrowRight: 0.005, ArrowUp: 0.005, PageDown: -0.05, PageUp: 0.05 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    setThreshold(type.index, state.thresholds[type.index] + step);
  });
  number.addEventListener("change", () => {
    const value = Number(number.value);
    if (number.value.trim() && Number.isFinite(value)) setThreshold(type.index, value);
    else change({ thresholds: [...state.thresholds] });
  });
  slider.addEventListener("dblclick", () => setThresholdTo(type.index, type.first));
  return { card, count, scores, slider, number, moveLine };
});

function setThresholdTo(index, value) {
  change({ thresholds: state.thresholds.map((old, i) => (i === index ? value : old)) });
}

{
  const key = own("div", { className: "chart-key" });
  const mark = (style, text) => {
    const sign = own("i");
    sign.style.cssText = style;
    key.append(own("span", {}, sign, text));
  };
  if (content.known) {
    mark("background:var(--ink)", "hits by score");
    mark("border:1px solid var(--ink);background:var(--shade)", "false");
    mark("height:0;border-top:2px solid var(--ink);vertical-align:3px", "F4 by threshold, from 0 to 1");
  } else {
    mark("background:var(--ink)", "candidates by score");
  }
  mark("width:0;height:12px;border-left:1px dashed var(--soft)", "threshold of the picks");
  key.append(own("span", {}, "heights: logarithms"));
  document.getElementById("types").append(key);
}

const COLUMNS = content.known
  ? [["truth", "truth"], ["found", "found"], ["hit", "hits"], ["false", "false"], ["missed", "missed"],
     ["precision", "precision"], ["recall", "recall"], ["f4", "F4"], ["weight", "weight"], ["threshold", "threshold"]]
  : [["found", "found"], ["threshold", "threshold"]];
const rows = [];

function buildTable() {
  const head = own("tr", {}, own("th", { scope: "col" }, "type"), ...COLUMNS.map(([, title]) => own("th", { scope: "col" }, title)));
  const body = own("tbody");
  for (const type of types) {
    const cells = Object.fromEntries(COLUMNS.map(([key]) => [key, own("td", { "data-key": key })]));
    const name = own("th", { scope: "row" }, swatch(), type.name);
    name.style.setProperty("--own", css(type.color));
    rows.push(cells);
    body.append(own("tr", { "data-type": type.name }, name, ...Object.values(cells)));
  }
  const foot = own("tfoot");
  if (content.known) {
    const blank = COLUMNS.findIndex(([key]) => key === "f4");
    foot.append(own("tr", {}, own("th", { scope: "row", colSpan: blank + 1 }, "weighted F4"),
      own("td", { id: "weighted-f4" }), own("td", { colSpan: COLUMNS.length - blank - 1 })));
  }
  document.getElementById("numbers").append(own("thead", {}, head), body, foot);
  document.getElementById("numbers-note").textContent = content.known
    ? "Counted as in the challenge: hits are particles of the ground truth with a pick near them; false picks are all others, so a second pick at a particle is false although its circle is drawn as a hit."
    : "The ground truth of this run is not known.";
}

function showNumbers() {
  const counts = types.map((type) => countsOf(type, state.thresholds[type.index]));
  counts.forEach((own, i) => {
    const { card, count, scores, slider, number, moveLine } = cards[i];
    const threshold = state.thresholds[i];
    card.classList.toggle("off", !state.visible[i]);
    count.textContent = own.found;
    if (document.activeElement !== slider || Number(slider.value) !== threshold) slider.value = threshold;
    slider.setAttribute("aria-valuetext", `${short(threshold)}, ${own.found} picks`);
    number.value = short(threshold);
    moveLine(threshold);
    if (content.known) {
      const parts = [["P", own.precision], ["R", own.recall], ["F4", own.f4]].map(([name, value]) => `${name} ${value.toFixed(2)}`);
      scores.textContent = types[i].truth.count ? parts.join("  ") : "none in the truth";
    }
    for (const [key] of COLUMNS) {
      const value = key === "threshold" ? threshold : key === "weight" ? types[i].weight : own[key];
      rows[i][key].textContent = ["precision", "recall", "f4", "threshold"].includes(key) ? three(value) : value;
    }
  });
  const total = counts.reduce((sum, c) => sum + c.found, 0);
  const parts = [own("span", {}, own("b", { id: "found" }, String(total)), total === 1 ? "pick" : "picks")];
  if (content.known) {
    const score = three(weightedF4(counts));
    document.getElementById("weighted-f4").textContent = score;
    parts.push(own("span", {}, own("b", { id: "score" }, score), "weighted F4"));
  }
  document.getElementById("total").replaceChildren(...parts);
  document.getElementById("thresholds").textContent = thresholdsText();
}

function thresholdsText() {
  return `${JSON.stringify(Object.fromEntries(types.map((t) => [t.name, state.thresholds[t.index]])), null, 1)}\n`;
}

buildTable();
listen((part) => {
  if ("thresholds" in part || "visible" in part) showNumbers();
});
