// Controls, keys, and what is said once.

const element = (id) => document.getElementById(id);
const plural = (count, what) => `${count} ${what}${count === 1 ? "" : "s"}`;

{
  const [depth, tall, wide] = content.grid.shape_zyx;
  const binned = Math.max(...content.slices.bin_zyx) > 1
    ? `, shown in boxes of ${[...content.slices.bin_zyx].reverse().join("×")}` : "";
  element("facts").textContent = `${wide}×${tall}×${depth} voxels of ${spacingX.toFixed(2)} Å${binned} · `
    + `candidates above ${short(content.floor)}`
    + (content.known ? ` · ${plural(types.reduce((n, t) => n + t.truth.count, 0), "known particle")}` : "");
}

const z = element("z");
z.max = String(content.slices.count - 1);
z.addEventListener("input", () => setSlice(Number(z.value)));
element("before").addEventListener("click", () => setSlice(state.z - 1));
element("after").addEventListener("click", () => setSlice(state.z + 1));
listen((part) => {
  if (!("z" in part)) return;
  z.value = String(state.z);
  const nanometres = (voxelOfSlice(state.z) * spacingZ) / 10;
  element("depth").textContent = `${state.z + 1} of ${content.slices.count} · ${nanometres.toFixed(0)} nm`;
  z.setAttribute("aria-valuetext", element("depth").textContent);
});

for (const [id, key] of [["heat-on", "heat"], ["circles", "circles"], ["below", "below"], ["fade", "fade"], ["planes", "planes"]]) {
  element(id).addEventListener("change", (event) => change({ [key]: event.target.checked }));
  listen((part) => {
    if (key in part) element(id).checked = state[key];
  });
}
element("heat-tool").hidden = !heatImages;
element("heat-opacity").addEventListener("input", (event) => {
  change({ opacity: Number(event.target.value), heat: true });
});
element("slab").addEventListener("change", (event) => change({ slab: Number(event.target.value) }));
for (const id of ["contrast", "brightness"]) {
  element(id).addEventListener("input", () => {
    const filter = `brightness(${element("brightness").value}) contrast(${element("contrast").value})`;
    for (const image of document.querySelectorAll(".views canvas.gray")) image.style.filter = filter;
  });
  element(id).addEventListener("dblclick", () => {
    element(id).value = "1";
    element(id).dispatchEvent(new Event("input"));
  });
}
element("legend").hidden = !content.known;
for (const kind of ["hit", "false", "missed"]) {
  element(`show-${kind}`).addEventListener("change", (event) => change({ show: { ...state.show, [kind]: event.target.checked } }));
}

function zoomToSelected(factor) {
  if (state.selected) centreOn(state.selected);
  zoomAt(stage.clientWidth / 2, stage.clientHeight / 2, factor);
}

// The pick that comes next in z, of the visible types.
function step(direction) {
  const all = currentPicks().filter((mark) => state.visible[nowOf(mark)]);
  if (!all.length) return;
  const place = (mark) => mark.zyx[0];
  all.sort((a, b) => place(a) - place(b));
  let at = state.selected ? all.findIndex((mark) => mark.key === state.selected.key) : -1;
  if (at < 0) {
    at = all.findIndex((mark) => place(mark) >= voxelOfSlice(state.z));
    at = (at < 0 ? all.length : at) - (direction > 0 ? 1 : 0);
  }
  goTo(all[(at + direction + all.length) % all.length]);
}

const KEYS = {
  ArrowUp: () => setSlice(state.z - 1),
  ArrowDown: () => setSlice(state.z + 1),
  ArrowLeft: () => setSlice(state.z - 1),
  ArrowRight: () => setSlice(state.z + 1),
  PageUp: () => setSlice(state.z - 10),
  PageDown: () => setSlice(state.z + 10),
  Home: () => setSlice(0),
  End: () => setSlice(content.slices.count - 1),
  h: () => change({ heat: !state.heat && Boolean(heatImages) }),
  c: () => change({ circles: !state.circles }),
  n: () => step(1),
  p: () => step(-1),
  "+": () => zoomToSelected(1.4),
  "-": () => zoomToSelected(1 / 1.4),
  o: () => change({ planes: !state.planes }),
  Escape: () => change({ selected: null, review: false, boxing: false }),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.closest?.("input:not([type=checkbox]), select, textarea");
  const moves = /^(Arrow|Page|Home|End)/.test(event.key);
  // Keys that scroll the page belong to the slices only where these have the focus.
  if (typing || (moves && event.target !== stage && event.target !== document.body && event.target !== document)) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

function download(name, text) {
  const link = own("a", { download: name, href: URL.createObjectURL(new Blob([text], { type: "application/json" })) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
const save = () => download("thresholds.json", thresholdsText());
element("save").addEventListener("click", save);
element("save-again").addEventListener("click", save);
element("reset").addEventListener("click", () => change({ thresholds: types.map((t) => t.first) }));
element("best").hidden = !content.known;
element("best").addEventListener("click", () => {
  change({ thresholds: types.map((t) => (t.truth.count ? bestThreshold(t) : state.thresholds[t.index])) });
});

const THEMES = { auto: ["◐", "Light or dark, like the system"], light: ["☀", "Light"], dark: ["☾", "Dark"] };
function showTheme(name) {
  document.documentElement.dataset.theme = name;
  [element("theme").textContent] = THEMES[name];
  element("theme").title = THEMES[name][1];
  element("theme").setAttribute("aria-label", `Colors: ${THEMES[name][1]}`);
}
element("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  showTheme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
});
showTheme("auto");

for (const [why, command] of content.commands) {
  element("commands").append(own("dt", {}, why), own("dd", {}, own("pre", { tabIndex: 0 }, command)));
}
for (const [title, lines] of Object.entries(content.record)) {
  const list = own("dl");
  for (const [label, text] of Object.entries(lines)) list.append(own("dt", {}, label), own("dd", {}, text));
  element("record").append(own("div", {}, own("h3", {}, title), list));
}
