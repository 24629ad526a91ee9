// What the page holds: numbers at once, images when they are asked for.

const content = JSON.parse(document.getElementById("content").textContent);

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

const numbersOf = (base64) => new Float64Array(bytesOf(base64).buffer);

function placesOf(packed) {
  const places = { xyz: numbersOf(packed.xyz_angstrom), zyx: numbersOf(packed.zyx_voxel) };
  places.count = places.xyz.length / 3;
  return places;
}

// Picks come from the best down.
const types = content.types.map((own, index) => ({
  index,
  name: own.name,
  radius: own.radius_angstrom,
  weight: own.weight,
  first: own.threshold,
  color: own.color,
  lowest: own.lowest,
  leftOut: own.left_out,
  picks: {
    ...placesOf(own.picks),
    score: numbersOf(own.picks.score),
    probability: own.picks.probability ? numbersOf(own.picks.probability) : null, // of being right
  },
  truth: own.truth && placesOf(own.truth),
}));

const highest = Math.max(1, ...types.map((t) => (t.picks.count ? t.picks.score[0] : 0)));

// Decoded images, the least recently used ones dropped.
class Images {
  constructor(prefix, count, limit, decode) {
    Object.assign(this, { prefix, count, limit, decode, kept: new Map() });
  }

  get(index) {
    const i = Math.min(Math.max(index, 0), this.count - 1);
    let image = this.kept.get(i);
    this.kept.delete(i);
    image ??= this.fresh(i);
    this.kept.set(i, image);
    while (this.kept.size > this.limit) this.kept.delete(this.kept.keys().next().value);
    return image;
  }

  // Decoded for the caller alone.
  fresh(i) {
    return this.decode(bytesOf(document.getElementById(`${this.prefix}-${i}`).textContent));
  }
}

const sliceImages = new Images("slice", content.slices.count, 48, (bytes) =>
  createImageBitmap(new Blob([bytes], { type: "image/jpeg" })));

// One byte a pixel, the types one below the other.
const heatImages = content.overlay && new Images("heat", content.overlay.count, 64, async (bytes) => {
  const bitmap = await createImageBitmap(new Blob([bytes], { type: "image/png" }), {
    colorSpaceConversion: "none", premultiplyAlpha: "none",
  });
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const { data } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  const values = new Uint8Array(data.length / 4);
  for (let i = 0; i < values.length; i++) values[i] = data[4 * i];
  return values;
});
