// Picks added, accepted, rejected and given another type; regions marked as complete; saved and opened again.

const chosenType = () => types[Number(element("edit-type").value)];

types.forEach((type, i) => {
  const key = i < 9 ? ` (${i + 1})` : "";
  element("edit-type").append(own("option", { value: String(i) }, type.name + key));
  element("retype").append(own("option", { value: String(i) }, type.name + key));
});
element("edit-type").value = closeType.value;

function addAt(x, y) {
  const zyx = [voxelOfSlice(state.z), y, x];
  const xyz = angstromOf(zyx);
  const { index } = chosenType();
  const mark = { key: keyOfPlace(null, xyz), was: null, xyz, zyx, type: types[index], i: null };
  decide(mark, index);
  change({ selected: mark });
}

function decideSelected(now) {
  const mark = state.selected;
  if (!mark) return;
  decide(mark, now);
  if (state.review) nextDoubtful();
  else if (now === null) change({ selected: null });
}

// A pick that was added is accepted as it is.
const accept = () => state.selected && decideSelected(nowOf(state.selected) ?? state.selected.type.index);
const reject = () => decideSelected(null);

// Undecided candidates of a type, the most doubtful first: nearest to an even chance, else to the threshold.
function doubtful(type) {
  const limit = state.thresholds[type.index];
  const doubt = (i) => (type.picks.probability ? Math.abs(type.picks.probability[i] - 0.5) : Math.abs(type.picks.score[i] - limit));
  return Array.from({ length: type.picks.count }, (_, i) => i)
    .filter((i) => !marked.decided.has(keyOf(type, i)))
    .sort((a, b) => doubt(a) - doubt(b));
}

let lastDoubtful = null;

function nextDoubtful() {
  const type = chosenType();
  const left = doubtful(type);
  if (!left.length) {
    change({ review: false, selected: null });
    say(`All candidates of ${type.name} are decided.`);
    return;
  }
  const skipped = state.selected && lastDoubtful === state.selected.key ? left.indexOf(state.selected.i) : -1;
  const i = left[(skipped + 1) % left.length];
  lastDoubtful = keyOf(type, i);
  change({ review: true });
  goTo(candidate(type, i));
}

const say = (text) => { element("corrections-note").textContent = text; };
const percent = (share) => `${share < 0.1 ? (100 * share).toFixed(1) : (100 * share).toFixed(0)} %`;

function showDecided() {
  const counts = countDecided();
  const total = Object.values(counts).reduce((a, b) => a + b, 0);
  const parts = Object.entries(counts).filter(([, n]) => n).map(([name, n]) => `${n} ${name}`);
  const regions = marked.regions.length ? `${marked.regions.length} complete region${marked.regions.length === 1 ? "" : "s"}` : "";
  const text = total || regions ? [total ? `${total} decided: ${parts.join(", ")}` : "", regions].filter(Boolean).join(" · ") : "nothing decided yet";
  element("decided").textContent = text;
  element("decided").dataset.counts = JSON.stringify({ ...counts, regions: marked.regions.length });
  element("decided-again").textContent = text + (state.edits.length ? state.saved ? ", saved" : isKept ? ", kept in this browser, not saved to a file yet" : ", not saved: this browser keeps nothing" : "");
  element("undo").disabled = !state.edits.length;
  element("anew").disabled = !state.edits.length;
  element("save-corrections").disabled = !state.edits.length;
  correctedCounts().forEach(({ found, after }, i) => {
    correctedCells[i].found.textContent = found;
    correctedCells[i].after.textContent = after;
  });
  element("regions").replaceChildren(...marked.regions.map((region) => {
    const remove = own("button", { type: "button", ariaLabel: "Remove this region" }, "×");
    remove.addEventListener("click", () => change({ edits: state.edits.filter((e) => e !== region), saved: false }));
    const sizes = [0, 1, 2].map((a) => ((region.high[a] - region.low[a]) / 10).toFixed(0)).join(" × ");
    return own("li", {}, `${sizes} nm, ${percent(shareOf(region))} of the tomogram `, remove);
  }));
}

function shareOf({ low, high }) {
  const sizes = content.grid.shape_zyx.map((n, a) => n * spacings[a]);
  return (high[0] - low[0]) * (high[1] - low[1]) * (high[2] - low[2]) / (sizes[0] * sizes[1] * sizes[2]);
}

function showSelected() {
  const mark = state.selected;
  for (const id of ["accept", "reject", "retype"]) element(id).disabled = !mark;
  element("retype").value = "";
  element("edit").checked = state.edit;
  stage.classList.toggle("editing", state.edit);
  stage.classList.toggle("boxing", state.boxing);
  element("draw-box").setAttribute("aria-pressed", String(state.boxing));
  const now = mark && nowOf(mark);
  element("judged").textContent = !mark ? "" : [
    now === null ? `not ${mark.type.name}` : types[now].name,
    mark.i === null ? "" : three(mark.type.picks.score[mark.i]),
    mark.i === null || !mark.type.picks.probability ? "" : `chance ${percent(mark.type.picks.probability[mark.i])}`,
    marked.decided.has(mark.key) ? verdict(marked.decided.get(mark.key)) : "undecided",
  ].filter(Boolean).join(", ");
}

const correctedCells = [];
{
  const body = own("tbody");
  for (const type of types) {
    const name = own("th", { scope: "row" }, swatch(), type.name);
    name.style.setProperty("--own", css(type.color));
    const cells = { found: own("td", { "data-key": "found" }), after: own("td", { "data-key": "after" }) };
    correctedCells.push(cells);
    body.append(own("tr", { "data-type": type.name }, name, cells.found, cells.after));
  }
  const heads = ["type", "found", "corrected"].map((title) => own("th", { scope: "col" }, title));
  element("corrected").append(own("thead", {}, own("tr", {}, ...heads)), body);
}

// Slices, counted from 1 as they are shown, as a range of z in voxels from edge to edge.
function chosenSlices() {
  const [a, b] = ["from", "to"].map((id) => clamp(Math.round(Number(element(`complete-${id}`).value)) - 1, content.slices.count));
  const [first, last] = [Math.min(a, b), Math.max(a, b)];
  const end = last === content.slices.count - 1 ? content.grid.shape_zyx[0] : (last + 1) * binZ;
  return [first * binZ - 0.5, end - 0.5];
}

// From corner to corner, in voxels of the slice.
function markComplete([x0, y0], [x1, y1]) {
  const [zLow, zHigh] = chosenSlices();
  const corners = [angstromOf([zLow, Math.min(y0, y1), Math.min(x0, x1)]), angstromOf([zHigh, Math.max(y0, y1), Math.max(x0, x1)])];
  const low = [0, 1, 2].map((a) => Math.min(corners[0][a], corners[1][a]));
  const high = [0, 1, 2].map((a) => Math.max(corners[0][a], corners[1][a]));
  change({ edits: [...state.edits, { low, high }], saved: false, boxing: false });
}

element("complete-from").value = "1";
element("complete-to").value = String(content.slices.count);
for (const id of ["complete-from", "complete-to"]) element(id).max = String(content.slices.count);
element("mark-slices").addEventListener("click", () => {
  const [, tall, wide] = content.grid.shape_zyx;
  markComplete([-0.5, -0.5], [wide - 0.5, tall - 0.5]);
});
element("draw-box").addEventListener("click", () => change({ boxing: !state.boxing }));
element("edit").addEventListener("change", (event) => change({ edit: event.target.checked }));
element("accept").addEventListener("click", accept);
element("reject").addEventListener("click", reject);
element("retype").addEventListener("change", () => {
  const { value } = element("retype");
  if (value) decideSelected(Number(value));
  stage.focus({ preventScroll: true }); // the next key is a decision
});
element("undo").addEventListener("click", undo);
element("doubtful").addEventListener("click", nextDoubtful);
element("edit-type").addEventListener("change", () => {
  change({ review: false });
  stage.focus({ preventScroll: true });
});

element("save-corrections").addEventListener("click", () => {
  download(`${content.run}-corrections.json`, correctionsText());
  change({ saved: true });
});
element("open-corrections").addEventListener("change", async (event) => {
  const [file] = event.target.files;
  if (!file) return;
  try {
    const opened = editsOf(await file.text());
    if (!state.edits.length || state.saved || confirm(`Open ${file.name} and lose the unsaved decisions on this page?`)) {
      change({ ...opened, saved: true, selected: null });
      say(`${file.name} is open.`);
    }
  } catch (error) {
    say(`${file.name} cannot be used: ${error.message}.`);
  }
  event.target.value = "";
});
element("anew").addEventListener("click", () => {
  if (confirm("Undo all decisions on this page?")) change({ edits: [], saved: false, selected: null });
});

Object.assign(KEYS, {
  a: accept,
  r: reject,
  Delete: reject,
  Backspace: reject,
  d: nextDoubtful,
  u: undo,
  e: () => change({ edit: !state.edit }),
});
types.slice(0, 9).forEach((type, i) => {
  KEYS[String(i + 1)] = () => {
    if (state.selected) decideSelected(i);
    else element("edit-type").value = String(i);
  };
});

for (const [why, command] of content.correction_commands) {
  element("correction-commands").append(own("dt", {}, why), own("dd", {}, own("pre", { tabIndex: 0 }, command)));
}
listen((part) => {
  if ("edits" in part || "saved" in part || "thresholds" in part) showDecided();
  if ("edits" in part || "selected" in part || "edit" in part || "boxing" in part) showSelected();
  if ("edits" in part || "thresholds" in part) keep();
});
