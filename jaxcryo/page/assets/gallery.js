// Pictures of the picks around a type's threshold: the ones that a change of it concerns.

const SIDE = 6;
const CROP = 96;
const closeType = document.getElementById("close-type");
const closeBox = document.getElementById("close");
let closeTimer = 0;

types.forEach((type) => closeType.append(own("option", { value: String(type.index) }, type.name)));
const fullest = types.findIndex((t) => t.picks.count > 0);
closeType.value = String(Math.max(fullest, 0));

function showClose() {
  const type = types[Number(closeType.value)];
  const limit = countAbove(type.picks.score, state.thresholds[type.index]);
  const buttons = [];
  for (let i = Math.max(limit - SIDE, 0); i < Math.min(limit + SIDE, type.picks.count); i++) {
    if (i === limit) buttons.push(cutAt(type));
    buttons.push(pictureOf(type, i, i < limit));
  }
  if (limit >= type.picks.count) buttons.push(cutAt(type));
  if (!type.picks.count) buttons.push(own("p", { className: "quiet" }, `No candidates of ${type.name}.`));
  closeBox.style.setProperty("--own", css(type.color));
  closeBox.replaceChildren(...buttons);
}

function cutAt(type) {
  return own("div", { className: "cut" }, "threshold", own("br"), short(state.thresholds[type.index]));
}

function pictureOf(type, i, isIn) {
  const canvas = own("canvas", { width: 2 * CROP, height: 2 * CROP });
  const verdict = !type.truth ? "" : type.isHit[i] ? " ✓" : " ✗";
  const spoken = `${type.name}, score ${three(type.picks.score[i])}, ${isIn ? "in" : "out"}`
    + (type.truth ? `, ${type.isHit[i] ? "near a true particle" : "no true particle near"}` : "");
  const button = own("button", { type: "button", className: isIn ? "in" : "out", ariaLabel: spoken, title: spoken },
    canvas, `${three(type.picks.score[i])}${verdict}`);
  button.addEventListener("click", () => goTo(candidate(type, i)));
  const [z, y, x] = [0, 1, 2].map((a) => type.picks.zyx[3 * i + a]);
  sliceImages.get(sliceOfVoxel(z)).then((bitmap) => {
    const wide = (2.8 * type.radius) / spacingX / binX;
    const tall = (2.8 * type.radius) / spacingY / binY;
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, (x + 0.5) / binX - wide / 2, (y + 0.5) / binY - tall / 2, wide, tall, 0, 0, canvas.width, canvas.height);
  });
  return button;
}

closeType.addEventListener("change", showClose);
listen((part) => {
  if (!("thresholds" in part)) return;
  const moved = part.moved ?? null;
  if (moved !== null) closeType.value = String(moved);
  clearTimeout(closeTimer);
  closeTimer = setTimeout(showClose, 120);
});
