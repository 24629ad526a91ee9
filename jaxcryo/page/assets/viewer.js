// The slice, the heatmap over it and the circles, on three canvases that zoom and move together.

const stage = document.getElementById("stage");
const layers = ["image", "heat", "marks"].map((id) => document.getElementById(id).getContext("2d"));
const [imageLayer, heatLayer, marksLayer] = layers;
const tip = document.getElementById("tip");
const [height, width] = content.slices.size_yx;
const [spacingZ, spacingY, spacingX] = spacings;
const [, binY, binX] = content.slices.bin_zyx;
const view = { zoom: 1, x: width / 2, y: height / 2 };
const MAX_ZOOM = 12;
const MIN_RADIUS = 3; // pixels of the screen: a pick stays visible where its particle is barely cut
let drawn = [];
let queued = false;

document.documentElement.style.setProperty("--aspect", width / height);

function scaleOf() {
  return view.zoom * Math.min(stage.clientWidth / width, stage.clientHeight / height);
}

function toScreen(x, y) {
  const scale = scaleOf();
  return [(x - view.x) * scale + stage.clientWidth / 2, (y - view.y) * scale + stage.clientHeight / 2];
}

function toImage(x, y) {
  const scale = scaleOf();
  return [(x - stage.clientWidth / 2) / scale + view.x, (y - stage.clientHeight / 2) / scale + view.y];
}

function redraw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    drawMarks();
    drawImages();
    drawPlanes();
  });
}

function clear(context, wide = stage.clientWidth, tall = stage.clientHeight) {
  const dots = window.devicePixelRatio || 1;
  const { canvas } = context;
  const size = [Math.round(wide * dots), Math.round(tall * dots)];
  if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
  context.setTransform(dots, 0, 0, dots, 0, 0);
  context.clearRect(0, 0, wide, tall);
}

async function drawImages() {
  const wanted = { z: state.z, slab: state.slab, heat: state.heat };
  const around = [];
  for (let z = wanted.z - wanted.slab; z <= wanted.z + wanted.slab; z++) {
    if (z >= 0 && z < content.slices.count) around.push(z);
  }
  const showsHeat = wanted.heat && heatImages;
  const [bitmaps, values] = await Promise.all([
    Promise.all(around.map((z) => sliceImages.get(z))),
    showsHeat ? heatImages.get(Math.floor(voxelOfSlice(wanted.z) / content.overlay.bin_zyx[0])) : null,
  ]);
  if (wanted.z !== state.z || wanted.slab !== state.slab || wanted.heat !== state.heat) return;
  clear(imageLayer);
  imageLayer.imageSmoothingEnabled = scaleOf() < 6;
  imageLayer.imageSmoothingQuality = "high";
  bitmaps.forEach((bitmap, i) => {
    imageLayer.globalAlpha = 1 / (i + 1); // the mean of all so far
    place(imageLayer, bitmap, width, height);
  });
  imageLayer.globalAlpha = 1;
  clear(heatLayer);
  if (showsHeat) {
    const [tall, wide] = content.overlay.size_yx;
    const [, heatY, heatX] = content.overlay.bin_zyx;
    heatLayer.imageSmoothingEnabled = true;
    place(heatLayer, heatPicture(values, wide, tall), (wide * heatX) / binX, (tall * heatY) / binY);
  }
  heatLayer.canvas.style.opacity = state.opacity;
  stage.dataset.slice = wanted.z;
  for (const z of [wanted.z + 1, wanted.z - 1, wanted.z + 2]) {
    if (z >= 0 && z < content.slices.count) sliceImages.get(z);
  }
}

function place(context, picture, wide, tall) {
  const [left, top] = toScreen(0, 0);
  context.drawImage(picture, left, top, wide * scaleOf(), tall * scaleOf());
}

const heatCanvas = document.createElement("canvas");

// The colour of the visible type whose value is highest, the more opaque the higher.
const OPACITY = Uint8ClampedArray.from({ length: 256 }, (_, value) => 255 * (value / 255) ** 0.6);

function heatPicture(values, wide, tall) {
  Object.assign(heatCanvas, { width: wide, height: tall });
  const context = heatCanvas.getContext("2d");
  const picture = context.createImageData(wide, tall);
  const shown = types.filter((t) => state.visible[t.index]);
  const size = wide * tall;
  for (let i = 0; i < size; i++) {
    let value = 0;
    let color = null;
    for (const type of shown) {
      const own = values[type.index * size + i];
      if (own > value) [value, color] = [own, type.color];
    }
    if (color) picture.data.set([color[0], color[1], color[2], OPACITY[value]], 4 * i);
  }
  context.putImageData(picture, 0, 0);
  return heatCanvas;
}

// Calls back with each pick and missed particle that a plane across an axis (0 is z) cuts and that is to be seen.
function eachMark(axis, at, thick, callback) {
  const cut = (zyx, i, radius) => {
    const away = Math.max(Math.abs(zyx[3 * i + axis] - at) - thick, 0) * spacings[axis];
    return away < radius ? Math.sqrt(radius * radius - away * away) : 0;
  };
  for (const type of types) {
    if (!state.visible[type.index]) continue;
    const limit = state.thresholds[type.index];
    const { picks, truth } = type;
    for (let i = 0; i < picks.count; i++) {
      const above = picks.score[i] > limit;
      if (!above && !state.below) break; // they come from the best down
      const kind = !above ? "below" : !truth ? "pick" : type.isHit[i] ? "hit" : "false";
      if (state.show[kind] === false || marked.decided.has(keyOf(type, i))) continue;
      const radius = cut(picks.zyx, i, type.radius);
      if (radius > 0) callback({ ...candidate(type, i), kind, radius });
    }
    if (!truth || !state.show.missed) continue;
    for (let j = 0; j < truth.count; j++) {
      if (type.bestNear[j] > limit) continue;
      const radius = cut(truth.zyx, j, type.radius);
      const place = (values) => [0, 1, 2].map((a) => values[3 * j + a]);
      if (radius > 0) callback({ type, kind: "missed", zyx: place(truth.zyx), xyz: place(truth.xyz), i: null, radius });
    }
  }
  for (const edit of marked.decided.values()) {
    const mark = decidedMark(edit);
    const type = types[edit.now ?? edit.was];
    const radius = state.visible[type.index] ? cut(mark.zyx, 0, type.radius) : 0;
    if (radius > 0) callback({ ...mark, kind: edit.now === null ? "rejected" : "sure", color: type.color, radius });
  }
}

const DASHES = { hit: [], pick: [], false: [7, 5], missed: [0.1, 5], below: [], sure: [], rejected: [2, 4] };
const GREY = [170, 170, 170];

function drawMarks() {
  clear(marksLayer);
  drawn = [];
  const counts = { pick: 0, hit: 0, false: 0, missed: 0, below: 0, sure: 0, rejected: 0 };
  const scale = scaleOf();
  drawRegions(scale);
  if (state.circles) {
    eachMark(0, voxelOfSlice(state.z), (binZ - 1) / 2 + state.slab * binZ, (mark) => {
      const [x, y] = toScreen((mark.zyx[2] + 0.5) / binX, (mark.zyx[1] + 0.5) / binY);
      const wide = Math.max((mark.radius / spacingX / binX) * scale, MIN_RADIUS);
      const tall = Math.max((mark.radius / spacingY / binY) * scale, MIN_RADIUS);
      counts[mark.kind] += 1;
      drawn.push({ ...mark, x, y, wide });
      drawMark(marksLayer, mark, x, y, wide, tall);
    });
  }
  if (state.planes) {
    const at = toScreen((state.cursor.x + 0.5) / binX, (state.cursor.y + 0.5) / binY);
    drawCross(marksLayer, ...at, stage.clientWidth, stage.clientHeight);
  }
  stage.dataset.marks = JSON.stringify(counts);
  const shown = counts.pick + counts.hit + counts.false + counts.sure;
  stage.setAttribute("aria-label", `Slice ${state.z + 1} of ${content.slices.count}, ${shown} picks`
    + (content.known ? `, ${counts.false} of them false, ${counts.missed} particles missed` : ""));
  drawScaleBar(scale);
  document.getElementById("fit").hidden = view.zoom === 1;
  stage.classList.toggle("zoomed", view.zoom > 1);
}

function drawMark(context, mark, x, y, wide, tall) {
  const { type, kind, i } = mark;
  const scored = kind !== "missed" && i !== null;
  const strength = kind === "below" ? 0.6 : 1;
  const score = scored ? (type.picks.score[i] - type.lowest) / (highest - type.lowest) : 1;
  context.globalAlpha = strength * (state.fade && scored && kind !== "sure" ? 0.25 + 0.75 * score : 1);
  context.lineCap = kind === "missed" ? "round" : "butt";
  const path = new Path2D();
  path.ellipse(x, y, wide, tall, 0, 0, 2 * Math.PI);
  const sign = new Path2D();
  const arm = Math.min(4, wide / 2);
  if (kind === "false") sign.addPath(new Path2D(`M${x - arm} ${y - arm}l${2 * arm} ${2 * arm}M${x + arm} ${y - arm}l${-2 * arm} ${2 * arm}`));
  if (kind === "sure") sign.addPath(new Path2D(`M${x - arm} ${y}l${0.7 * arm} ${0.8 * arm}l${1.3 * arm} ${-1.6 * arm}`));
  if (kind === "rejected") sign.addPath(new Path2D(`M${x - arm} ${y}h${2 * arm}`));
  const thin = kind === "below" || kind === "rejected" ? 0.9 : kind === "missed" ? 2.6 : 1.8;
  const color = kind === "rejected" ? GREY : mark.color ?? type.color;
  for (const [stroke, line] of [["rgb(0 0 0 / .55)", thin + 2], [css(color), thin]]) {
    if (kind === "below" && line > thin) continue;
    context.strokeStyle = stroke;
    context.lineWidth = line;
    context.setLineDash(DASHES[kind]);
    context.stroke(path);
    context.setLineDash([]);
    context.stroke(sign);
  }
  if (mark.key && state.selected?.key === mark.key) {
    context.globalAlpha = 1;
    context.strokeStyle = "#fff";
    context.lineWidth = 1.5;
    context.beginPath();
    context.ellipse(x, y, wide + 5, tall + 5, 0, 0, 2 * Math.PI);
    context.stroke();
  }
  context.globalAlpha = 1;
}

// Where the three planes meet, open in the middle.
function drawCross(context, x, y, wide, tall) {
  context.strokeStyle = "rgb(255 255 255 / .4)";
  context.lineWidth = 1;
  context.setLineDash([]);
  const gap = 14;
  context.stroke(new Path2D(`M0 ${y}H${x - gap}M${x + gap} ${y}H${wide}M${x} 0V${y - gap}M${x} ${y + gap}V${tall}`));
}

// Complete regions that the slice cuts, and the box that is being drawn.
function drawRegions(scale) {
  const z = voxelOfSlice(state.z);
  const boxes = marked.regions.map(({ low, high }) => [voxelOf(low), voxelOf(high)])
    .filter((ends) => z >= Math.min(ends[0][0], ends[1][0]) && z <= Math.max(ends[0][0], ends[1][0]));
  if (drag?.corner) boxes.push([[z, drag.corner[1], drag.corner[0]], [z, drag.at[1], drag.at[0]]]);
  for (const [a, b] of boxes) {
    const [left, top] = toScreen((Math.min(a[2], b[2]) + 0.5) / binX, (Math.min(a[1], b[1]) + 0.5) / binY);
    const [wide, tall] = [(Math.abs(a[2] - b[2]) / binX) * scale, (Math.abs(a[1] - b[1]) / binY) * scale];
    marksLayer.fillStyle = "rgb(90 220 130 / .12)";
    marksLayer.strokeStyle = "rgb(90 220 130 / .9)";
    marksLayer.lineWidth = 2;
    marksLayer.setLineDash([]);
    marksLayer.fillRect(left, top, wide, tall);
    marksLayer.strokeRect(left + 1, top + 1, wide - 2, tall - 2);
  }
}

function drawScaleBar(scale) {
  const pixel = (scale / binX) / spacingX; // of the screen in an ångström
  const target = 110 / pixel;
  const step = 10 ** Math.floor(Math.log10(target));
  const length = [5, 2, 1].map((n) => n * step).find((n) => n <= target);
  const [text, line] = document.getElementById("scalebar").children;
  text.textContent = length >= 10 ? `${length / 10} nm` : `${length} Å`;
  line.style.width = `${length * pixel}px`;
}

function zoomAt(x, y, factor) {
  const before = toImage(x, y);
  view.zoom = Math.min(Math.max(view.zoom * factor, 1), MAX_ZOOM);
  const after = toImage(x, y);
  view.x += before[0] - after[0];
  view.y += before[1] - after[1];
  keepInside();
}

function keepInside() {
  const scale = scaleOf();
  const keep = (at, size, room) => {
    const half = room / scale / 2;
    return half * 2 >= size ? size / 2 : Math.min(Math.max(at, half), size - half);
  };
  view.x = keep(view.x, width, stage.clientWidth);
  view.y = keep(view.y, height, stage.clientHeight);
  redraw();
}

function centreOn(mark) {
  view.x = (mark.zyx[2] + 0.5) / binX;
  view.y = (mark.zyx[1] + 0.5) / binY;
}

// To a pick: its slice, and into view.
function goTo(mark) {
  centreOn(mark);
  const z = Math.min(Math.max(sliceOfVoxel(mark.zyx[0]), 0), content.slices.count - 1);
  change({ z, selected: mark });
  keepInside();
}

function markAt(x, y) {
  const near = drawn.map((m) => ({ m, away: Math.hypot(m.x - x, m.y - y) })).filter(({ m, away }) => away <= m.wide + 3);
  near.sort((a, b) => a.away - b.away);
  return near.length ? near[0].m : null;
}

function showTip(event) {
  const box = stage.getBoundingClientRect();
  const [x, y] = [event.clientX - box.left, event.clientY - box.top];
  const mark = markAt(x, y);
  tip.hidden = !mark;
  if (!mark) return;
  const { kind, i } = mark;
  const type = types[nowOf(mark) ?? mark.type.index];
  const at = mark.xyz.map((value) => value.toFixed(0)).join(", ");
  const said = { pick: "", hit: ", a hit", false: ", false", missed: ", missed", below: ", below the threshold" }[kind]
    ?? `, ${verdict(marked.decided.get(mark.key))}`;
  const score = i === null ? "" : ` ${mark.type.picks.score[i].toFixed(3)}`;
  tip.textContent = `${type.name}${score}${said}\nx, y, z: ${at} Å`;
  tip.style.left = `${Math.min(x + 14, box.width - tip.offsetWidth - 4)}px`;
  tip.style.top = `${Math.min(y + 14, box.height - tip.offsetHeight - 4)}px`;
}

const fingers = new Map();
let drag = null;

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  if (event.ctrlKey || event.metaKey) {
    zoomAt(event.clientX - box.left, event.clientY - box.top, Math.exp(-event.deltaY * 0.004));
  } else {
    stage.wheel = (stage.wheel || 0) + event.deltaY * (event.deltaMode === 0 ? 1 : 40);
    const steps = Math.trunc(stage.wheel / 40);
    stage.wheel -= steps * 40;
    if (steps) setSlice(state.z + steps);
  }
}, { passive: false });

stage.addEventListener("pointerdown", (event) => {
  if (event.target.closest("button")) return;
  fingers.set(event.pointerId, event);
  stage.setPointerCapture(event.pointerId);
  drag = { x: event.clientX, y: event.clientY, view: { ...view }, z: state.z, moved: false, gap: gapOf() };
  if (state.boxing && fingers.size === 1) drag.corner = drag.at = voxelAt(event); // two fingers zoom
  else if (state.boxing) redraw(); // without the box that the first finger began
});

// x, y in voxels where an event is.
function voxelAt(event) {
  const box = stage.getBoundingClientRect();
  const [x, y] = toImage(event.clientX - box.left, event.clientY - box.top);
  const inside = (value, size) => Math.min(Math.max(value, 0), size);
  return [inside(x, width) * binX - 0.5, inside(y, height) * binY - 0.5];
}

stage.addEventListener("pointermove", (event) => {
  if (!fingers.has(event.pointerId)) {
    showTip(event);
    return;
  }
  fingers.set(event.pointerId, event);
  const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
  drag.moved ||= Math.hypot(dx, dy) > 4;
  if (drag.corner) {
    drag.at = voxelAt(event);
    redraw();
  } else if (fingers.size === 2) {
    const [a, b] = [...fingers.values()];
    const box = stage.getBoundingClientRect();
    const gap = gapOf();
    zoomAt((a.clientX + b.clientX) / 2 - box.left, (a.clientY + b.clientY) / 2 - box.top, gap / (drag.gap || gap));
    drag.gap = gap;
  } else if (view.zoom > 1 && drag.moved) {
    stage.classList.add("moving");
    view.x = drag.view.x - dx / scaleOf();
    view.y = drag.view.y - dy / scaleOf();
    keepInside();
  } else if (event.pointerType === "touch" && drag.moved) {
    setSlice(drag.z + (dx / stage.clientWidth) * content.slices.count * 0.5);
  }
});

function gapOf() {
  const [a, b] = [...fingers.values()];
  return b ? Math.hypot(a.clientX - b.clientX, a.clientY - b.clientY) : 0;
}

for (const name of ["pointerup", "pointercancel"]) {
  stage.addEventListener(name, (event) => {
    if (!fingers.delete(event.pointerId)) return;
    stage.classList.remove("moving");
    if (drag?.corner) {
      const { corner, moved } = drag;
      drag = null;
      if (name === "pointerup" && moved) markComplete(corner, voxelAt(event));
      else redraw();
    } else if (name === "pointerup" && drag && !drag.moved) {
      const box = stage.getBoundingClientRect();
      const mark = markAt(event.clientX - box.left, event.clientY - box.top);
      const [x, y] = voxelAt(event);
      if (mark?.key) change({ selected: mark });
      else if (state.edit) addAt(x, y);
      else change({ selected: null, cursor: { x, y } });
      showTip(event);
    }
    const [left] = fingers.values();
    if (left) drag = { x: left.clientX, y: left.clientY, view: { ...view }, z: state.z, moved: true, gap: 0 };
  });
}
stage.addEventListener("pointerleave", () => { tip.hidden = true; });
stage.addEventListener("dblclick", (event) => {
  const box = stage.getBoundingClientRect();
  zoomAt(event.clientX - box.left, event.clientY - box.top, 2);
});
document.getElementById("fit").addEventListener("click", () => {
  view.zoom = 1;
  keepInside();
});
new ResizeObserver(keepInside).observe(stage);

listen((part) => {
  if ("z" in part) tip.hidden = true;
  if (part.selected) state.cursor = { x: part.selected.zyx[2], y: part.selected.zyx[1] };
  redraw();
});
