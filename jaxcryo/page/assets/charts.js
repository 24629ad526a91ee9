// Of each type: how many picks have which score, and F4 by threshold over the same axis.

const SVG = "http://www.w3.org/2000/svg";
const BINS = 50;
const WIDE = 1000;
const TALL = 100;

function shape(name, attributes, parent) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  parent.append(element);
  return element;
}

const atScore = (score) => (score / highest) * WIDE;

function histogramOf(type) {
  const right = new Float64Array(BINS);
  const wrong = new Float64Array(BINS);
  type.picks.score.forEach((score, i) => {
    const bin = Math.min(Math.max(Math.floor((score / highest) * BINS), 0), BINS - 1);
    (type.truth && !type.isHit[i] ? wrong : right)[bin] += 1;
  });
  return { right, wrong, top: Math.max(...right.map((n, i) => n + wrong[i]), 1) };
}

// Heights are logarithms of counts, so that few good picks show beside many bad ones.
function drawChart(type, parent) {
  const svg = shape("svg", { class: "chart", viewBox: `0 0 ${WIDE} ${TALL}`, preserveAspectRatio: "none", role: "img" }, parent);
  const { right, wrong, top } = histogramOf(type);
  const heightOf = (count) => (Math.log1p(count) / Math.log1p(top)) * (TALL - 4);
  const clips = ["out", "in"].map((side) => {
    const id = `clip-${side}-${type.index}`;
    return shape("rect", { y: 0, height: TALL }, shape("clipPath", { id }, svg));
  });
  if (type.lowest > 0) shape("rect", { class: "blind", x: 0, y: 0, width: atScore(type.lowest), height: TALL }, svg);
  for (const side of ["out", "in"]) {
    const group = shape("g", { class: side, "clip-path": `url(#clip-${side}-${type.index})` }, svg);
    for (let i = 0; i < BINS; i++) {
      const all = right[i] + wrong[i];
      if (!all) continue;
      const whole = heightOf(all);
      const part = (whole * right[i]) / all;
      const across = { x: (i / BINS) * WIDE + 1, width: WIDE / BINS - 2 };
      if (wrong[i]) shape("rect", { class: "bar-false", ...across, y: TALL - whole, height: whole - part }, group);
      if (right[i]) shape("rect", { class: "bar-in", ...across, y: TALL - part, height: part }, group);
    }
  }
  shape("line", { class: "base", x1: 0, x2: WIDE, y1: TALL, y2: TALL }, svg);
  shape("line", { class: "first", x1: atScore(type.first), x2: atScore(type.first), y1: 0, y2: TALL }, svg);
  if (type.truth && type.truth.count) {
    const points = [];
    for (let i = 0; i <= 200; i++) {
      const threshold = type.lowest + ((highest - type.lowest) * i) / 200;
      points.push(`${atScore(threshold).toFixed(1)},${(TALL - countsOf(type, threshold).f4 * (TALL - 2)).toFixed(1)}`);
    }
    shape("polyline", { class: "f4", points: points.join(" ") }, svg);
  }
  const line = shape("line", { class: "line", y1: -3, y2: TALL }, svg);
  return (threshold) => {
    const x = atScore(threshold);
    for (const [key, value] of [["x1", x], ["x2", x]]) line.setAttribute(key, value);
    clips[0].setAttribute("x", 0);
    clips[0].setAttribute("width", Math.max(x, 0));
    clips[1].setAttribute("x", x);
    clips[1].setAttribute("width", Math.max(WIDE - x, 0));
    svg.setAttribute("aria-label", `Scores of ${type.picks.count} candidates of ${type.name}, `
      + `${countsOf(type, threshold).found} above ${threshold.toFixed(3)}`);
  };
}
