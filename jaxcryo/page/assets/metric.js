// The score as jaxcryo/metric.py has it, for any threshold at once.
//
// A reference point is found at a threshold if the best candidate near it is above, so that with the best score near
// each reference point and the scores of all candidates, sorted, each count is a binary search.

function matchType(type) {
  const { picks, truth } = type;
  type.isHit = new Uint8Array(picks.count);
  if (!truth) return;
  const reach = content.metric.radius_share * type.radius;
  const best = new Float64Array(truth.count).fill(-Infinity);
  for (let j = 0; j < truth.count; j++) {
    for (let i = 0; i < picks.count; i++) {
      const dx = picks.xyz[3 * i] - truth.xyz[3 * j];
      if (dx > reach || dx < -reach) continue;
      const dy = picks.xyz[3 * i + 1] - truth.xyz[3 * j + 1];
      const dz = picks.xyz[3 * i + 2] - truth.xyz[3 * j + 2];
      if (dx * dx + dy * dy + dz * dz > reach * reach) continue;
      type.isHit[i] = 1;
      if (picks.score[i] > best[j]) best[j] = picks.score[i];
    }
  }
  type.bestNear = best;
  type.bestSorted = Float64Array.from(best).sort().reverse();
}

// How many of the descending values are above the limit.
function countAbove(descending, limit) {
  let low = 0;
  let high = descending.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (descending[middle] > limit) low = middle + 1;
    else high = middle;
  }
  return low;
}

function countsOf(type, threshold) {
  const found = countAbove(type.picks.score, threshold);
  if (!type.truth) return { found };
  const hit = countAbove(type.bestSorted, threshold);
  const truth = type.truth.count;
  const precision = found > 0 ? hit / found : 0;
  const recall = truth > 0 ? hit / truth : 0;
  const square = content.metric.beta ** 2;
  const f4 = precision + recall > 0 ? ((1 + square) * precision * recall) / (square * precision + recall) : 0;
  return { found, truth, hit, false: found - hit, missed: truth - hit, precision, recall, f4 };
}

function weightedF4(counts) {
  let sum = 0;
  let total = 0;
  counts.forEach((own, i) => {
    sum += types[i].weight * own.f4;
    total += types[i].weight;
  });
  return total ? sum / total : 0;
}

// The middle of the first stretch of thresholds, in steps of 0.001, whose F4 no other exceeds.
function bestThreshold(type) {
  let best = { f4: -1, from: 0, to: 0 };
  const first = Math.ceil(type.lowest * 1000);
  for (let step = first; step <= Math.floor(highest * 1000); step++) {
    const { f4 } = countsOf(type, step / 1000);
    if (f4 > best.f4) best = { f4, from: step, to: step };
    else if (f4 === best.f4 && best.to === step - 1) best.to = step;
  }
  return Math.round((best.from + best.to) / 2) / 1000;
}

types.forEach(matchType);
