// What a person decided: a list of edits of which the last can be taken back; of two about one pick the later holds.
//
// An edit is about a pick (`was`: its type, null for an added one; `now`: its type, null for none), or it is a box in
// which every particle is marked.

const KIND = "jaxcryo corrections";
const storageName = `${KIND} ${location.pathname} ${content.run}`;
const marked = { decided: new Map(), regions: [] };
const keyOf = (type, i) => `${type.index}:${i}`;
const keyOfPlace = (was, xyz) => `${was === null ? "+" : was}@${xyz.join()}`;

// The grid's `to_angstrom` and `to_voxel`, of jaxcryo/domain.py.
const { spacing_zyx_angstrom: spacings, origin_xyz_angstrom: origin, axes, offset_voxel: offset } = content.grid;

function angstromOf(zyx) {
  const along = [2, 1, 0].map((a, k) => (zyx[a] + offset) * spacings[a] + origin[k]);
  return ["x", "y", "z"].map((axis) => along[axes.indexOf(axis)]);
}

function voxelOf(xyz) {
  const along = [...axes].map((axis, k) => xyz["xyz".indexOf(axis)] - origin[k]);
  return [0, 1, 2].map((a) => along[2 - a] / spacings[a] - offset);
}

listen((part) => {
  if (!("edits" in part)) return;
  marked.decided = new Map();
  marked.regions = [];
  for (const edit of state.edits) {
    if (edit.low) {
      marked.regions.push(edit);
      continue;
    }
    marked.decided.delete(edit.key);
    if (edit.was !== null || edit.now !== null) marked.decided.set(edit.key, edit);
  }
});

function decide(mark, now) {
  const { key, was, xyz } = mark;
  change({ edits: [...state.edits, { key, was, now, xyz }], saved: false });
}

function undo() {
  if (state.edits.length) change({ edits: state.edits.slice(0, -1), saved: false, selected: null });
}

// What can be decided about: a candidate, or a pick that was added or comes of other candidates.
function candidate(type, i) {
  const place = (values) => [0, 1, 2].map((a) => values[3 * i + a]);
  return { key: keyOf(type, i), was: type.index, xyz: place(type.picks.xyz), zyx: place(type.picks.zyx), type, i };
}

function decidedMark(edit) {
  const [was, i] = /^\d+:/.test(edit.key) ? edit.key.split(":").map(Number) : [null, null];
  if (was !== null) return candidate(types[was], i);
  return { key: edit.key, was: edit.was, xyz: edit.xyz, zyx: voxelOf(edit.xyz), type: types[edit.now ?? edit.was], i: null };
}

// The mark's own type as it stands: what was decided, else what it was found as; null for none.
const nowOf = (mark) => (marked.decided.has(mark.key) ? marked.decided.get(mark.key).now : mark.was);

// All picks as corrected: candidates above the thresholds but the rejected ones, and those that a person named.
function currentPicks() {
  const found = types.flatMap((type) => Array.from(
    { length: countAbove(type.picks.score, state.thresholds[type.index]) }, (_, i) => candidate(type, i),
  ).filter((mark) => !marked.decided.has(mark.key)));
  return [...found, ...[...marked.decided.values()].filter((edit) => edit.now !== null).map(decidedMark)];
}

function verdict({ was, now }) {
  return was === null ? "added" : now === null ? "rejected" : was === now ? "accepted" : "retyped";
}

function countDecided() {
  const counts = { accepted: 0, rejected: 0, retyped: 0, added: 0 };
  for (const edit of marked.decided.values()) counts[verdict(edit)] += 1;
  return counts;
}

// Of each type: picks above the threshold, and what is left of them with what was decided.
function correctedCounts() {
  const after = types.map(() => 0);
  for (const mark of currentPicks()) after[nowOf(mark)] += 1;
  return types.map((type, i) => ({ found: countAbove(type.picks.score, state.thresholds[i]), after: after[i] }));
}

function correctionsText() {
  const name = (index) => (index === null ? null : types[index].name);
  return `${JSON.stringify({
    kind: KIND,
    run: content.run,
    thresholds: Object.fromEntries(types.map((t) => [t.name, state.thresholds[t.index]])),
    decisions: [...marked.decided.values()].map(({ xyz, was, now }) => ({ xyz_angstrom: xyz, was: name(was), now: name(now) })),
    complete: marked.regions.map(({ low, high }) => ({ low_xyz_angstrom: low, high_xyz_angstrom: high })),
  }, null, 1)}\n`;
}

// The edits of a text that `correctionsText` wrote, and its thresholds. Throws what is wrong with it.
function editsOf(text) {
  const file = JSON.parse(text);
  if (file.kind !== KIND) throw new Error("these are no corrections");
  if (file.run !== content.run) throw new Error(`these are corrections of ${file.run}, and this is ${content.run}`);
  const index = (name) => {
    if (name === null) return null;
    const found = types.find((t) => t.name === name);
    if (!found) throw new Error(`${name} is not a particle of this page`);
    return found.index;
  };
  const numbers = (values) => {
    if (values.length !== 3 || !values.every(Number.isFinite)) throw new Error("a position is not three numbers");
    return values;
  };
  const known = new Map();
  for (const type of types) {
    for (let i = 0; i < type.picks.count; i++) known.set(keyOfPlace(type.index, candidate(type, i).xyz), keyOf(type, i));
  }
  const decisions = file.decisions.map((d) => {
    const [xyz, was, now] = [numbers(d.xyz_angstrom), index(d.was), index(d.now)];
    const place = keyOfPlace(was, xyz);
    return { key: known.get(place) ?? place, was, now, xyz };
  });
  const regions = file.complete.map((r) => ({ low: numbers(r.low_xyz_angstrom), high: numbers(r.high_xyz_angstrom) }));
  return { edits: [...decisions, ...regions], thresholds: types.map((t) => file.thresholds[t.name] ?? t.first) };
}

// Kept in the browser, so that a closed tab loses nothing.
let isKept = true;
let unread = null; // what is kept and this page cannot read: it stays until something is decided, then aside

function keep() {
  try {
    if (state.edits.length) {
      if (unread) localStorage.setItem(`${storageName} aside`, unread);
      unread = null;
      localStorage.setItem(storageName, correctionsText());
    } else if (!unread) localStorage.removeItem(storageName);
  } catch {
    isKept = false;
  }
}

// Edits and thresholds as they were left, and what is to be said of them.
function keptBefore() {
  let text = null;
  try {
    text = localStorage.getItem(storageName);
    return text ? { ...editsOf(text), about: "Your earlier decisions on this page are restored." } : {};
  } catch (error) {
    unread = text;
    return text ? { about: `Your earlier decisions do not fit this page (${error.message}). This browser keeps them.` } : {};
  }
}

window.addEventListener("beforeunload", (event) => {
  if (!isKept && state.edits.length && !state.saved) event.preventDefault();
});
