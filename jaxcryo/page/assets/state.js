// What is being looked at. Whoever draws something listens; `change` says what became different.

const state = {
  z: 0,
  thresholds: types.map((t) => t.first),
  visible: types.map(() => true),
  heat: false,
  opacity: 0.75,
  circles: true,
  below: false,
  fade: false,
  slab: 0,
  show: { hit: true, false: true, missed: true },
  selected: null, // what `candidate` of corrections.js gives
  cursor: { x: content.grid.shape_zyx[2] >> 1, y: content.grid.shape_zyx[1] >> 1 }, // voxels
  planes: window.innerWidth >= 900,
  edits: [],
  saved: false,
  edit: false,
  boxing: false,
  review: false,
};

const listeners = [];

function listen(listener) {
  listeners.push(listener);
}

function change(part) {
  Object.assign(state, part);
  for (const listener of listeners) listener(part);
}

function setThreshold(index, value) {
  const rounded = Math.round(value * 1000) / 1000;
  const kept = Math.min(Math.max(rounded, types[index].lowest), highest);
  change({ thresholds: state.thresholds.map((old, i) => (i === index ? kept : old)), moved: index });
}

function setSlice(z) {
  const kept = Math.min(Math.max(Math.round(z), 0), content.slices.count - 1);
  if (kept !== state.z) change({ z: kept });
}

// The z of a displayed slice's middle, in voxels, and the slice that shows a voxel.
const binZ = content.slices.bin_zyx[0];
const voxelOfSlice = (z) => z * binZ + (binZ - 1) / 2;
const sliceOfVoxel = (voxel) => Math.round((voxel - (binZ - 1) / 2) / binZ);
const css = (color) => `rgb(${color.join(" ")})`;
