"use strict";
// What is computed of a signal, without a page: packed samples → µV, montages, filters.
const signals = (() => {
  async function inflated(base64) {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // The inverse of `encoded` in report/signals.py: one Float32Array of µV a channel, NaN where nothing was recorded.
  function decoded(bytes, nChannels) {
    const nTimes = (bytes.length - 8 * nChannels) / (2 * nChannels);
    const header = new DataView(bytes.buffer, bytes.byteOffset, 8 * nChannels);
    const low = 8 * nChannels, high = low + nChannels * nTimes;
    const slopes = new Int16Array(nTimes);
    return Array.from({ length: nChannels }, (_, c) => {
      const offset = header.getFloat32(4 * c, true), step = header.getFloat32(4 * (nChannels + c), true);
      const uv = new Float32Array(nTimes);
      let level = 0;
      for (let t = 0; t < nTimes; t++) {
        const folded = bytes[low + c * nTimes + t] | (bytes[high + c * nTimes + t] << 8);
        slopes[t] += (folded >>> 1) ^ -(folded & 1); // an Int16Array wraps around as the encoder does
        level = ((level + slopes[t]) << 16) >> 16;
        uv[t] = level === -32768 ? NaN : offset + level * step;
      }
      return uv;
    });
  }

  // One Float64Array a trace: an electrode less another, less the mean of the electrodes at that moment, or as it is.
  function derived(channels, traces, electrodes) {
    const n = channels[0].length;
    let average = null;
    if (traces.some((trace) => trace.minus === "average")) {
      average = new Float64Array(n);
      for (let t = 0; t < n; t++) {
        let sum = 0, count = 0;
        for (const e of electrodes) if (!Number.isNaN(channels[e][t])) { sum += channels[e][t]; count++; }
        average[t] = count ? sum / count : NaN;
      }
    }
    return traces.map(({ plus, minus }) => {
      const out = Float64Array.from(channels[plus]);
      const other = minus === "average" ? average : minus === null ? null : channels[minus];
      if (other) for (let t = 0; t < n; t++) out[t] -= other[t];
      return out;
    });
  }

  const normalised = (b0, b1, b2, a0, a1, a2) => [b0 / a0, b1 / a0, b2 / a0, a1 / a0, a2 / a0];

  // Butterworth filters of second order by the bilinear transform, as scipy.signal.butter(2, hz, kind, fs=fs).
  function butterworth(kind, hz, fs) {
    const w = (2 * Math.PI * hz) / fs, cos = Math.cos(w), alpha = Math.sin(w) * Math.SQRT1_2;
    const b = kind === "low" ? (1 - cos) / 2 : (1 + cos) / 2;
    return normalised(b, kind === "low" ? 2 * b : -2 * b, b, 1 + alpha, -2 * cos, 1 - alpha);
  }

  // As scipy.signal.iirnotch(hz, q, fs=fs).
  function notch(hz, q, fs) {
    const w = (2 * Math.PI * hz) / fs, beta = Math.tan(w / (2 * q)), cos = Math.cos(w);
    return normalised(1, -2 * cos, 1, 1 + beta, -2 * cos, 1 - beta);
  }

  // Runs a section along a signal, from a state in which its first value has been there for ever.
  function run([b0, b1, b2, a1, a2], x) {
    const gain = (b0 + b1 + b2) / (1 + a1 + a2);
    let z1 = (gain - b0) * x[0], z2 = (b2 - a2 * gain) * x[0];
    for (let t = 0; t < x.length; t++) {
      const y = b0 * x[t] + z1;
      z1 = b1 * x[t] - a1 * y + z2;
      z2 = b2 * x[t] - a2 * y;
      x[t] = y;
    }
  }

  // Forwards and backwards, so that nothing is shifted in time. Gaps are bridged by straight lines for the filters and
  // are gaps again afterwards; at both ends the signal is mirrored through its last value for `reach` samples.
  function filtered(x, sections, reach) {
    const first = x.findIndex((value) => !Number.isNaN(value));
    if (!sections.length || first < 0) return x;
    const n = x.length, pad = Math.min(reach, n - 1), whole = new Float64Array(n + 2 * pad);
    let before = first;
    for (let t = 0; t < n; t++) {
      if (Number.isNaN(x[t])) continue;
      for (let gap = before + 1; gap < t; gap++) {
        whole[pad + gap] = x[before] + ((x[t] - x[before]) * (gap - before)) / (t - before);
      }
      whole[pad + t] = x[t];
      before = t;
    }
    whole.fill(x[first], pad, pad + first);
    whole.fill(x[before], pad + before + 1, pad + n);
    for (let k = 1; k <= pad; k++) {
      whole[pad - k] = 2 * whole[pad] - whole[pad + k];
      whole[pad + n - 1 + k] = 2 * whole[pad + n - 1] - whole[pad + n - 1 - k];
    }
    for (let way = 0; way < 2; way++) {
      for (const section of sections) run(section, whole);
      whole.reverse();
    }
    return whole.subarray(pad, pad + n).map((value, t) => (Number.isNaN(x[t]) ? NaN : value));
  }

  return { inflated, decoded, derived, butterworth, notch, filtered };
})();
