// Draws what is known all along a recording: probabilities, votes, flags, spectrogram of both sides, what signal there is.
function bytesOf(base64) {
  return Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
}

function clock(seconds, digits = 0) {
  const ticks = Math.round(Math.abs(seconds) * 10 ** digits), whole = Math.floor(ticks / 10 ** digits);
  const two = (n) => String(n).padStart(2, "0");
  const rest = digits ? "." + String(ticks % 10 ** digits).padStart(digits, "0") : "";
  return `${seconds < 0 && ticks ? "−" : ""}${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}${rest}`;
}

// The round times from one second to another of which as many have room in a width.
function roundTimes(from, to, width) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  const every = steps.find((s) => (to - from) / s <= width / 64) ?? 172800, first = Math.ceil(from / every);
  return Array.from({ length: Math.floor(to / every) - first + 1 }, (_, i) => (first + i) * every);
}

// Fits a canvas to its place on the page, in the pixels of the device.
function paper(canvas) {
  const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
  if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  pen.font = `11px ${colour("--sans")}`;
  pen.imageSmoothingEnabled = false;
  return {
    pen, width, height, ratio, ink: colour("--ink"), soft: colour("--soft"), rule: colour("--rule"), card: colour("--card"), colour,
  };
}

class Windows {
  constructor(packed, classes) {
    const words = (text) => (text === null ? null : new Uint16Array(bytesOf(text).buffer));
    this.classes = classes;
    this.n = packed.n;
    this.start = new Float64Array(bytesOf(packed.start_s).buffer);
    this.every = packed.every_s;
    this.probabilities = words(packed.probabilities);
    this.spreads = words(packed.spread);
    this.flags = Object.entries(packed.flags).map(([name, text]) => [name, bytesOf(text)]);
    this.votes = packed.votes;
    this.who = packed.who;
  }

  // Six numbers from 0 to 1 of one window; null where there are none.
  of(array, i) {
    if (array === null || array[6 * i] === 65535) return null;
    return Array.from(array.subarray(6 * i, 6 * i + 6), (value) => value / 10000);
  }

  probability(i) { return this.of(this.probabilities, i); }

  share(i) {
    const total = this.votes[i].reduce((a, b) => a + b, 0);
    return total ? this.votes[i].map((count) => count / total) : null;
  }

  flagged(i) { return this.flags.filter(([, set]) => set[i]).map(([name]) => name); }

  // Until when a window stands in the timeline: the next one's beginning, or its own end where the next is far.
  end(i, labelS) {
    const least = Math.max(this.every, labelS) * 1.001, next = this.start[i + 1];
    return next !== undefined && next - this.start[i] <= least ? next : this.start[i] + labelS;
  }

  // The last window that begins at or before a second; −1 before the first.
  before(second) {
    let low = 0, high = this.n;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.start[middle] <= second) low = middle + 1; else high = middle;
    }
    return low - 1;
  }

  // The window whose judged seconds lie nearest to a second; −1 if there is none at all.
  nearest(second, labelS) {
    const at = this.before(second - labelS / 2), next = at + 1;
    if (at < 0 || next >= this.n) return Math.min(Math.max(at, 0), this.n - 1);
    return second - labelS / 2 - this.start[at] <= this.start[next] - (second - labelS / 2) ? at : next;
  }
}

class Timeline {
  constructor(canvas, content, windows, redraw) {
    this.canvas = canvas;
    this.content = content;
    this.windows = windows;
    this.left = 46;
    this.right = 8;
    this.images = content.spectrogram.images.map((address) => {
      const image = new Image();
      image.addEventListener("load", redraw);
      image.src = address;
      return image;
    });
  }

  // The second under a horizontal place on the canvas.
  second(x) {
    const share = (x - this.left) / (this.canvas.clientWidth - this.left - this.right);
    return this.from + Math.min(Math.max(share, 0), 1) * (this.to - this.from);
  }

  draw(from, to, place) {
    Object.assign(this, { from, to });
    const drawn = paper(this.canvas), { pen, width, height } = drawn;
    const plot = width - this.left - this.right, x = (t) => this.left + ((t - from) / (to - from)) * plot;
    const bottom = height - 17, strips = 16, gap = 3, lanes = [];
    if (this.windows.votes) lanes.push(["votes", (i) => this.windows.share(i)]);
    if (this.windows.probabilities) lanes.push(["models", (i) => this.windows.probability(i)]);
    const unit = (bottom - strips - gap * (lanes.length + 2)) / (lanes.length * 1.3 + 2);
    let top = 0;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    const label = (text, middle) => { pen.fillStyle = drawn.soft; pen.fillText(text, this.left - 5, middle); };
    for (const [name, shares] of lanes) {
      this.stack(drawn, x, top, unit * 1.3, shares);
      label(name, top + unit * 0.65);
      top += unit * 1.3 + gap;
    }
    this.strip(drawn, x, top, 5, (i) => this.likely(i));
    this.strip(drawn, x, top + 6, 5, (i) => this.flag(i));
    label("marks", top + 6);
    top += strips;
    ["left", "right"].forEach((side, s) => {
      this.picture(drawn, x, top, unit, this.images[s]);
      label(side, top + unit / 2);
      top += unit + gap;
    });
    this.kept(drawn, x, bottom - 3);
    this.axis(drawn, x, bottom);
    const [first, last] = [x(place[0]), x(place[1])];
    pen.fillStyle = drawn.ink;
    pen.globalAlpha = 0.16;
    pen.fillRect(first, 0, Math.max(last - first, 1), bottom);
    pen.globalAlpha = 1;
    pen.strokeStyle = drawn.ink;
    pen.lineWidth = 1.5;
    pen.strokeRect(first - 1, 0.75, Math.max(last - first, 1) + 2, bottom - 1.5);
  }

  // Calls `use` with the windows under each pixel column of the plot.
  columns({ width, ratio }, use) {
    const n = Math.round((width - this.left - this.right) * ratio), labelS = this.content.facts.label_s;
    const step = (this.to - this.from) / n;
    for (let column = 0; column < n; column++) {
      const begin = this.from + column * step, end = begin + step, found = [];
      for (let i = Math.max(this.windows.before(begin), 0); i < this.windows.n && this.windows.start[i] < end; i++) {
        if (this.windows.end(i, labelS) > begin) found.push(i);
      }
      if (found.length) use(this.left + column / ratio, 1 / ratio, found);
    }
  }

  stack(drawn, x, top, height, shares) {
    const { pen } = drawn;
    pen.fillStyle = drawn.rule;
    pen.globalAlpha = 0.35;
    pen.fillRect(this.left, top, x(this.to) - this.left, height);
    pen.globalAlpha = 1;
    this.columns(drawn, (at, wide, found) => {
      const known = found.map(shares).filter((values) => values !== null);
      if (!known.length) return;
      let level = top + height;
      this.windows.classes.forEach(({ colour }, k) => {
        const part = (height * known.reduce((sum, values) => sum + values[k], 0)) / known.length;
        pen.fillStyle = colour;
        pen.fillRect(at, level - part, wide, part);
        level -= part;
      });
    });
  }

  // The harmful class that a window most likely shows, if it is as likely as all else together.
  likely(i) {
    const values = this.windows.probability(i) ?? (this.windows.votes ? this.windows.share(i) : null);
    if (values === null) return null;
    const harmful = values.slice(0, 5), most = Math.max(...harmful);
    return most >= 0.5 ? [most, this.windows.classes[harmful.indexOf(most)].colour] : null;
  }

  flag(i) {
    const flags = this.windows.flagged(i);
    const opacities = this.content.flag_opacities.filter(([name]) => flags.includes(name)).map(([, opacity]) => opacity);
    return opacities.length ? [Math.max(...opacities), null] : null;
  }

  strip(drawn, x, top, height, of) {
    this.columns(drawn, (at, wide, found) => {
      const best = found.map(of).filter((value) => value !== null).sort((a, b) => b[0] - a[0])[0];
      if (!best) return;
      const [size, colour] = best;
      drawn.pen.fillStyle = colour ?? drawn.ink;
      drawn.pen.globalAlpha = colour ? 1 : size;
      drawn.pen.fillRect(at, top, wide, height);
      drawn.pen.globalAlpha = 1;
    });
  }

  picture({ pen, rule }, x, top, height, image) {
    const { first_s: firstS, column_s: columnS, n } = this.content.spectrogram;
    pen.fillStyle = rule;
    pen.fillRect(this.left, top, x(this.to) - this.left, height);
    if (!image.complete || !image.naturalWidth) return;
    pen.save();
    pen.beginPath();
    pen.rect(this.left, top, x(this.to) - this.left, height);
    pen.clip();
    pen.drawImage(image, x(firstS), top, x(firstS + n * columnS) - x(firstS), height);
    pen.restore();
  }

  kept({ pen, soft }, x, top) {
    const { block_s: blockS, kept, whole } = this.content.signal;
    if (whole) return;
    pen.fillStyle = soft;
    for (const block of kept) {
      const first = Math.max(block * blockS, this.from), last = Math.min((block + 1) * blockS, this.to);
      if (last > first) pen.fillRect(x(first), top, Math.max(x(last) - x(first), 1), 3);
    }
  }

  axis({ pen, width, soft, rule }, x, bottom) {
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const t of roundTimes(this.from, this.to, width - this.left - this.right)) {
      pen.fillStyle = rule;
      pen.fillRect(x(t), bottom, 1, 4);
      pen.fillStyle = soft;
      const text = clock(t), half = pen.measureText(text).width / 2;
      pen.fillText(text, Math.min(Math.max(x(t), half), width - half), bottom + 5);
    }
  }
}
