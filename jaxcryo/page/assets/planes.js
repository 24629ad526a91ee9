// Beside the slice the planes xz and yz through the cursor, at the slice's scale.

const views = document.getElementById("views");
const sides = ["xz", "yz"].map((name) => {
  const box = document.getElementById(name);
  const [image, marks, sign] = box.children;
  return { name, box, image: image.getContext("2d"), marks: marks.getContext("2d"), sign };
});
const STACK_BYTES = 80_000_000;
const zStretch = (spacingZ * binZ) / (spacingX * binX); // pixels of the slice in the height of one
const wideSide = Math.min(content.slices.count * zStretch, 0.4 * Math.max(width, height));
let stack = null;

views.style.setProperty("--columns", `${width}fr ${wideSide}fr`);
views.style.setProperty("--side", `${width} / ${wideSide}`);

function showPlanes(on) {
  views.classList.toggle("with-planes", on);
  document.documentElement.style.setProperty("--views", on ? (width + wideSide) / (height + wideSide) : width / height);
  if (on && !stack) fillStack();
  keepInside();
}

// All slices in gray, coarser where they would take too much memory; those near the shown one come first.
async function fillStack() {
  const { count } = content.slices;
  const bin = Math.ceil(Math.sqrt((count * width * height) / STACK_BYTES));
  const [wide, tall] = [Math.max(Math.floor(width / bin), 1), Math.max(Math.floor(height / bin), 1)];
  stack = { wide, tall, gray: new Uint8Array(count * wide * tall) };
  const canvas = own("canvas", { width: wide, height: tall });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const order = Array.from({ length: count }, (_, z) => z).sort((a, b) => Math.abs(a - state.z) - Math.abs(b - state.z));
  for (const [n, z] of order.entries()) {
    const bitmap = await sliceImages.fresh(z);
    context.drawImage(bitmap, 0, 0, wide, tall);
    bitmap.close();
    const { data } = context.getImageData(0, 0, wide, tall);
    const start = z * wide * tall;
    for (let i = 0; i < wide * tall; i++) stack.gray[start + i] = data[4 * i];
    if (n % 16 === 15 || n === count - 1) redraw();
  }
  views.dataset.planes = "ready";
}

const planeCanvas = document.createElement("canvas");

// Across is x or z, down is z or y.
function planePicture(name) {
  const { wide, tall, gray } = stack;
  const { count } = content.slices;
  const [across, down] = name === "xz" ? [wide, count] : [count, tall];
  const [x, y] = [clamp(Math.floor(((state.cursor.x + 0.5) / binX / width) * wide), wide), clamp(Math.floor(((state.cursor.y + 0.5) / binY / height) * tall), tall)];
  Object.assign(planeCanvas, { width: across, height: down });
  const context = planeCanvas.getContext("2d");
  const picture = context.createImageData(across, down);
  for (let j = 0; j < down; j++) {
    for (let i = 0; i < across; i++) {
      const value = name === "xz" ? gray[(j * tall + y) * wide + i] : gray[(i * tall + j) * wide + x];
      picture.data.set([value, value, value, 255], 4 * (j * across + i));
    }
  }
  context.putImageData(picture, 0, 0);
  return planeCanvas;
}

const clamp = (value, size) => Math.min(Math.max(value, 0), size - 1);

// The screen's place of a slice (its upper edge) in a plane whose room for z is so long: around the shown slice.
function sliceToScreen(z, room) {
  const step = zStretch * scaleOf();
  const whole = content.slices.count * step;
  const middle = (state.z + 0.5) * step;
  const start = whole <= room ? (whole - room) / 2 : Math.min(Math.max(middle - room / 2, 0), whole - room);
  return z * step - start;
}

function drawPlanes() {
  if (!views.classList.contains("with-planes") || !stack) return;
  for (const { name, box, image, marks, sign } of sides) {
    const isXz = name === "xz";
    const size = [box.clientWidth, box.clientHeight];
    for (const context of [image, marks]) clear(context, ...size);
    const scale = scaleOf();
    const room = isXz ? size[1] : size[0];
    const at = (zyx) => {
      const [x, y] = toScreen((zyx[2] + 0.5) / binX, (zyx[1] + 0.5) / binY);
      const z = sliceToScreen((zyx[0] + 0.5) / binZ, room);
      return isXz ? [x, z] : [z, y];
    };
    const [left, top] = toScreen(0, 0);
    const first = sliceToScreen(0, room);
    const depth = content.slices.count * zStretch * scale;
    image.imageSmoothingEnabled = true;
    if (isXz) image.drawImage(planePicture(name), left, first, width * scale, depth);
    else image.drawImage(planePicture(name), first, top, depth, height * scale);
    const axis = isXz ? 1 : 2;
    const where = isXz ? state.cursor.y : state.cursor.x;
    if (state.circles) {
      eachMark(axis, where, 0.5, (mark) => {
        const [x, y] = at(mark.zyx);
        const inPlane = Math.max((mark.radius / spacingX / binX) * scale, MIN_RADIUS);
        drawMark(marks, mark, x, y, inPlane, inPlane);
      });
    }
    const cross = at([voxelOfSlice(state.z), state.cursor.y, state.cursor.x]);
    drawCross(marks, ...cross, ...size);
    sign.textContent = isXz ? `xz at y ${state.cursor.y.toFixed(0)}` : `yz at x ${state.cursor.x.toFixed(0)}`;
  }
}

for (const { name, box } of sides) {
  box.addEventListener("click", (event) => {
    const bounds = box.getBoundingClientRect();
    const [across, down] = [event.clientX - bounds.left, event.clientY - bounds.top];
    const [x, y] = toImage(name === "xz" ? across : 0, name === "xz" ? 0 : down);
    const room = name === "xz" ? box.clientHeight : box.clientWidth;
    const z = Math.floor(((name === "xz" ? down : across) - sliceToScreen(0, room)) / (zStretch * scaleOf()));
    const cursor = name === "xz" ? { ...state.cursor, x: x * binX - 0.5 } : { ...state.cursor, y: y * binY - 0.5 };
    change({ cursor, selected: null });
    setSlice(z);
  });
}
listen((part) => {
  if ("planes" in part) showPlanes(state.planes);
});
