// One page of traces below the timeline, and how to go on. Everything it needs is in the file; it fetches nothing.
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const { facts, choices, signal, stops, duration_s: durationS } = content;
  const by = (id) => document.getElementById(id);
  const GROUPS = { LL: "--left", LP: "--left", RL: "--right", RP: "--right", midline: "--ink", EKG: "--ink" };
  const MM = 96 / 25.4; // CSS pixels of a millimetre
  const LEFT = 58, TOP = 8, BOTTOM = 20;
  const windows = new Windows(content.windows, content.classes);
  const timelines = [];
  const montages = content.montage_names;
  const low = choices.low.filter((hz) => hz < signal.hz * 0.45), notches = choices.notch.filter((hz) => hz < signal.hz * 0.45);
  const phone = window.innerWidth < 600;
  const start = { page: phone ? 10 : 20, montage: montages[0], high: 0.5, low: 40, notch: 0, uv: 0, t: content.start.t };
  const state = { ...start };
  let shown = null; // what stands on the canvas: traces of the page, drawn and unfiltered
  let asked = 0;

  // ---- the signal ------------------------------------------------------------------------------------------------
  const kept = new Set(signal.kept), empty = new Set(signal.empty), blocks = new Map();
  const has = (t) => kept.has(Math.floor(t / signal.block_s));
  if (content.start.stop !== null) {
    const first = has(stops[content.start.stop].centre_s) ? stops[content.start.stop] : stops.find((stop) => has(stop.centre_s));
    if (first) start.t = first.centre_s - start.page / 2;
  }
  state.t = start.t;
  const everything = new Promise((resolve) => {
    if (document.readyState !== "loading") resolve();
    else document.addEventListener("DOMContentLoaded", resolve);
  });

  function block(number) {
    if (!blocks.has(number)) {
      if (blocks.size > 30) blocks.delete(blocks.keys().next().value);
      const text = by(`block-${number}`).textContent;
      blocks.set(number, signals.inflated(text).then((bytes) => signals.decoded(bytes, content.channels.length)));
    }
    return blocks.get(number);
  }

  const numbers = (from, to) => {
    const first = Math.max(Math.floor(from / signal.block_s), 0);
    const last = Math.min(Math.ceil(to / signal.block_s), signal.n_blocks);
    return Array.from({ length: Math.max(last - first, 0) }, (_, i) => first + i);
  };

  // Samples of all channels from a second on; NaN where there are none.
  async function samples(from, n) {
    await everything;
    const first = Math.round(from * signal.hz), perBlock = signal.block_s * signal.hz;
    const channels = content.channels.map(() => new Float32Array(n).fill(NaN));
    for (const number of numbers(from, from + n / signal.hz)) {
      if (!kept.has(number)) continue;
      const part = await block(number), at = number * perBlock - first;
      channels.forEach((channel, c) => {
        const low = Math.max(0, -at), high = Math.min(perBlock, n - at);
        if (high > low) channel.set(part[c].subarray(low, high), at + low);
      });
    }
    return channels;
  }

  function sections() {
    const made = [];
    if (state.high) made.push(signals.butterworth("high", state.high, signal.hz));
    if (state.low) made.push(signals.butterworth("low", state.low, signal.hz));
    if (state.notch) made.push(signals.notch(state.notch, choices.notch_q, signal.hz));
    return made;
  }

  // The traces of a page: unfiltered, and filtered with what is around them in view.
  async function traces() {
    const hz = signal.hz, margin = state.high ? Math.min(30, Math.max(5, 4 / state.high)) : 5;
    const from = Math.max(0, state.t - margin), begin = Math.round(state.t * hz) - Math.round(from * hz);
    const last = Math.min(durationS, state.t + state.page + margin);
    const n = Math.round(last * hz) - Math.round(from * hz), count = Math.round(state.page * hz);
    const channels = await samples(from, n), wanted = content.montages[state.montage];
    const electrodes = content.montages.referential ? content.montages.referential.filter((t) => t.group !== "EKG").map((t) => t.plus) : [];
    const raw = signals.derived(channels, wanted, electrodes);
    const made = sections(), reach = Math.min(margin * hz, 4000);
    const filtered = raw.map((trace) => signals.filtered(trace, made, reach));
    const page = (trace) => trace.slice(begin, begin + count);
    return { t: Math.round(state.t * hz) / hz, hz, labels: wanted, raw: raw.map(page), uv: filtered.map(page) };
  }

  // ---- traces ----------------------------------------------------------------------------------------------------
  function rows() {
    const heights = [];
    let height = 0, before = null;
    for (const { group } of content.montages[state.montage]) {
      if (before !== null) height += before === group ? 1 : 1.5;
      heights.push(height);
      before = group;
    }
    return heights;
  }

  function geometry(canvas) {
    const heights = rows(), width = canvas.clientWidth, height = canvas.clientHeight;
    const unit = (height - TOP - BOTTOM) / (heights[heights.length - 1] + 2);
    return {
      unit, width, height, y: (row) => TOP + (heights[row] + 1) * unit, x: (t) => LEFT + ((t - state.t) / state.page) * (width - LEFT - 8),
    };
  }

  // The sensitivity at which the traces as a rule keep to their rows.
  function fitting() {
    const sizes = [];
    shown.labels.forEach(({ group }, row) => {
      if (group !== "EKG") for (let i = 0; i < shown.uv[row].length; i += 5) if (!Number.isNaN(shown.uv[row][i])) sizes.push(Math.abs(shown.uv[row][i]));
    });
    if (!sizes.length) for (const level of envelopeOf(0, content.envelope.labels.length)) sizes.push(level / 2);
    sizes.sort((a, b) => a - b);
    const typical = sizes[Math.floor(sizes.length * 0.98)] ?? 0, unit = geometry(by("traces")).unit / MM;
    return choices.sensitivity.find((uv) => typical / uv <= 0.8 * unit) ?? choices.sensitivity[choices.sensitivity.length - 1];
  }

  function grid(drawn, { x, height, width }) {
    const { pen, rule, soft } = drawn, room = width / state.page, every = room > 30 ? 1 : room > 22 ? 2 : 5;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (let t = Math.ceil(state.t - 1e-6); t <= state.t + state.page + 1e-6; t++) {
      pen.strokeStyle = rule;
      pen.lineWidth = t % 5 === 0 ? 1.2 : 0.5;
      pen.beginPath();
      pen.moveTo(x(t), TOP);
      pen.lineTo(x(t), height - BOTTOM);
      pen.stroke();
      if (t % every && t % 5) continue;
      pen.fillStyle = soft;
      const text = t % 5 === 0 ? clock(t) : String(t % 60), half = pen.measureText(text).width / 2;
      if (room < 44 && [1, 4].includes(t % 5)) continue; // beside the longer labels
      pen.fillText(text, Math.min(Math.max(x(t), half), width - half), height - BOTTOM + 4);
    }
  }

  function labelled(drawn, { x, height }) {
    const at = windows.nearest(state.t + state.page / 2, facts.label_s);
    if (at < 0) return;
    const from = Math.max(windows.start[at], state.t), to = Math.min(windows.start[at] + facts.label_s, state.t + state.page);
    if (to <= from) return;
    drawn.pen.fillStyle = drawn.colour("--labelled");
    drawn.pen.globalAlpha = 0.15;
    drawn.pen.fillRect(x(from), TOP, x(to) - x(from), height - TOP - BOTTOM);
    drawn.pen.globalAlpha = 1;
  }

  // What mattered to a model in a window: its seconds from top to bottom, its chains from side to side.
  function tinted({ pen, card, ink, colour }, { x, y, height, width, unit }) {
    const { tint } = content;
    if (!tint) return;
    const ends = (s) => [Math.max(tint.start_s + s, state.t), Math.min(tint.start_s + s + 1, state.t + state.page)];
    const fill = (value, most, strongest) => {
      pen.fillStyle = value > 0 ? colour("--model") : ink;
      pen.globalAlpha = (strongest * Math.abs(value)) / most;
    };
    const largest = (values) => Math.max(...values.map(Math.abs), facts.least_most);
    tint.by_second.forEach((value, s) => {
      const [from, to] = ends(s);
      if (to <= from) return;
      fill(value, largest(tint.by_second), 0.4);
      pen.fillRect(x(from), TOP, x(to) - x(from), height - TOP - BOTTOM);
    });
    const from = Math.max(tint.start_s, state.t), to = Math.min(tint.start_s + facts.window_s, state.t + state.page);
    pen.textAlign = "left";
    pen.textBaseline = "middle";
    for (const [chain, value] of Object.entries(tint.by_chain)) {
      const of = content.montages[state.montage].map(({ group }, row) => (group === chain ? row : -1)).filter((row) => row >= 0);
      if (!of.length || to <= from) continue;
      const top = y(of[0]) - unit / 2, bottom = y(of[of.length - 1]) + unit / 2;
      fill(value, largest(Object.values(tint.by_chain)), 0.3);
      pen.fillRect(x(from), top, x(to) - x(from), bottom - top);
      const text = `${chain} ${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`, wide = pen.measureText(text).width + 8;
      pen.globalAlpha = 0.85;
      pen.fillStyle = card;
      pen.fillRect(x(from) + 4, top + 1, wide, 16);
      pen.globalAlpha = 1;
      pen.fillStyle = ink;
      pen.fillText(text, x(from) + 8, top + 9);
    }
    pen.globalAlpha = 1;
  }

  // Peak-to-peak voltages of some derivations, at one place or on the page; nothing where nothing was recorded.
  function envelopeOf(first, stop, only = null) {
    const { step_s: stepS, n, per_octave: octave } = content.envelope, found = [];
    const from = only ?? Math.floor(state.t / stepS), to = only === null ? Math.min(n, (state.t + state.page) / stepS) : only + 1;
    for (let row = first; row < stop; row++) for (let i = from; i < to; i++) {
      if (levels[row * n + i] !== 255) found.push(2 ** (levels[row * n + i] / octave) - 1);
    }
    return found;
  }

  // Where no signal was kept: how large it was, second by second.
  function envelope(drawn, { x, y, unit }, missing) {
    const { step_s: stepS, n, labels } = content.envelope;
    const { pen, soft } = drawn;
    content.montages.bipolar.forEach(({ label, group }, row) => {
      const of = labels.indexOf(label);
      if (group === "EKG" || of < 0) return;
      pen.fillStyle = soft;
      pen.globalAlpha = 0.3;
      for (let i = Math.floor(state.t / stepS); i * stepS < state.t + state.page && i < n; i++) {
        const [uv] = missing(i * stepS) ? envelopeOf(of, of + 1, i) : [];
        if (uv === undefined) continue;
        const size = Math.min((uv / state.uv) * MM, 0.92 * unit);
        const from = Math.max(i * stepS, state.t), to = Math.min((i + 1) * stepS, state.t + state.page);
        pen.fillRect(x(from), y(row) - size / 2, x(to) - x(from) - 0.5, Math.max(size, 1));
      }
      pen.globalAlpha = 1;
    });
  }
  let levels = new Uint8Array(0);
  everything.then(() => { levels = bytesOf(by("envelope").textContent); });

  function heart(trace) {
    let largest = 0;
    for (const value of trace) if (Math.abs(value) > largest) largest = Math.abs(value);
    return largest > 0.001 ? 0.7 / largest : 0;
  }

  function drawTraces() {
    if (!shown) return;
    const canvas = by("traces"), place = geometry(canvas), drawn = paper(canvas), { pen } = drawn;
    tinted(drawn, place);
    labelled(drawn, place);
    grid(drawn, place);
    const missing = (t) => !has(t) && !empty.has(Math.floor(t / signal.block_s));
    if (numbers(state.t, state.t + state.page).some((k) => !kept.has(k))) envelope(drawn, place, missing);
    shown.labels.forEach(({ label, group }, row) => {
      const gain = group === "EKG" ? heart(shown.uv[row]) * place.unit : MM / state.uv;
      pen.strokeStyle = drawn.colour(GROUPS[group]);
      pen.lineWidth = 1;
      pen.lineJoin = "round";
      pen.beginPath();
      let down = false;
      const trace = shown.uv[row], middle = place.y(row), most = place.unit * 2.5;
      for (let i = 0; i < trace.length; i++) {
        if (Number.isNaN(trace[i])) { down = false; continue; }
        const level = middle + Math.min(Math.max(trace[i] * gain, -most), most), at = place.x(shown.t + i / shown.hz);
        if (down) pen.lineTo(at, level); else pen.moveTo(at, level);
        down = true;
      }
      pen.stroke();
    });
    pen.fillStyle = drawn.card;
    pen.globalAlpha = 0.85;
    pen.fillRect(0, 0, LEFT - 4, place.height - BOTTOM);
    pen.globalAlpha = 1;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillStyle = drawn.ink;
    shown.labels.forEach(({ label }, row) => pen.fillText(label, LEFT - 6, place.y(row)));
    scaleBar(drawn, place);
  }

  function scaleBar({ pen, ink, card }, { width, height, unit, x }) {
    const nice = [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000];
    const uv = nice.filter((value) => (value / state.uv) * MM <= Math.max(2 * unit, 40)).pop() ?? nice[0];
    const tall = (uv / state.uv) * MM, wide = x(state.t + 1) - x(state.t);
    const right = width - 16, bottom = height - BOTTOM - 24, text = [`${uv} µV`, "1 s"];
    const room = Math.max(...text.map((word) => pen.measureText(word).width));
    pen.fillStyle = card;
    pen.globalAlpha = 0.88;
    pen.fillRect(right - wide - room - 12, bottom - Math.max(tall, 14) - 6, wide + room + 20, Math.max(tall, 14) + 24);
    pen.globalAlpha = 1;
    pen.strokeStyle = ink;
    pen.lineWidth = 2;
    pen.beginPath();
    pen.moveTo(right - wide, bottom - tall);
    pen.lineTo(right - wide, bottom);
    pen.lineTo(right, bottom);
    pen.stroke();
    pen.fillStyle = ink;
    pen.textAlign = "right";
    pen.textBaseline = "middle";
    pen.fillText(text[0], right - wide - 5, bottom - tall / 2);
    pen.textAlign = "center";
    pen.textBaseline = "top";
    pen.fillText(text[1], right - wide / 2, bottom + 4);
    canvasScale = { uv, px: tall };
  }
  let canvasScale = null;

  // ---- words -----------------------------------------------------------------------------------------------------
  function made(tag, text, name) {
    const element = document.createElement(tag);
    if (text !== null) element.textContent = text;
    if (name) element.className = name;
    return element;
  }

  function say() {
    const box = by("said"), at = windows.nearest(state.t + state.page / 2, facts.label_s);
    const values = at < 0 ? null : windows.probability(at), votes = at < 0 || !windows.votes ? null : windows.votes[at];
    const spread = at < 0 ? null : windows.of(windows.spreads, at), flags = at < 0 ? [] : windows.flagged(at);
    box.replaceChildren();
    const share = values ?? (votes ? windows.share(at) : null);
    content.classes.forEach(({ name, colour }, k) => {
      const cell = made("div", null, "cell"), bar = made("i", null, ""), track = made("span", null, "track");
      bar.style.width = share ? `${100 * share[k]}%` : "0";
      bar.style.background = colour;
      track.append(bar);
      const said = made("span", values ? values[k].toFixed(2) : votes ? "" : "–", "figures");
      if (values && spread) said.append(made("span", ` ± ${spread[k].toFixed(2)}`, "spread"));
      if (votes) said.append(`${values ? ", " : ""}${votes[k]} ${votes[k] === 1 ? "vote" : "votes"}`);
      cell.append(made("b", name, ""), said, track);
      box.append(cell);
    });
    const from = at < 0 ? "" : `${clock(windows.start[at])}–${clock(windows.start[at] + facts.label_s)}`;
    const what = values ? `${windows.who}${votes ? ", and votes" : ""} for ${from}` : votes ? `votes on ${from}` : at < 0 ? "no window" : `${from} was not judged`;
    const worth = flags.length ? `; flagged: ${flags.join(", ")}` : "";
    const others = windows.n > 1 && content.windows.shown_of > 1 ? `; one window of ${content.windows.shown_of} is shown` : "";
    by("which").textContent = what + worth + others;
  }

  function explain() {
    const box = by("words"), lacking = numbers(state.t, state.t + state.page).filter((k) => !kept.has(k));
    const unkept = lacking.filter((k) => !empty.has(k));
    box.hidden = !lacking.length;
    if (box.hidden) return;
    box.replaceChildren();
    if (!unkept.length) { box.append(made("p", "Nothing was recorded here.", "")); return; }
    const from = Math.max(0, Math.floor((unkept[0] * signal.block_s) / 600) * 600);
    const to = Math.min(Math.ceil(durationS), from + 1200), second = Math.max(0, Math.round(state.t + state.page / 2 - facts.window_s / 2));
    const ends = { from: clock(from), to: clock(to), from_s: from, to_s: to, second };
    const remedy = content.remedy.replace(/\{(\w+)\}/g, (_, name) => String(ends[name]));
    box.append(made("p", "The signal of this stretch is not on this page, only how large it was (grey, peak to peak). For a page that has it, ", ""));
    const [words, command] = remedy.split(" --");
    box.lastChild.append(`${words} `, command ? made("code", `--${command}`, "") : "", ".");
    const sorted = signal.kept, here = state.t / signal.block_s;
    for (const [text, to] of [["◀ signal before", sorted.filter((k) => k + 1 <= here).pop()], ["signal after ▶", sorted.find((k) => k > here)]]) {
      if (to === undefined) continue;
      const button = made("button", text, "");
      button.type = "button";
      button.addEventListener("click", () => go({ t: to * signal.block_s + (signal.block_s - state.page) / 2 }));
      box.append(button);
    }
  }

  // ---- pictures of single windows ----------------------------------------------------------------------------------
  const pictures = new Map();
  function picture(address) {
    if (!pictures.has(address)) {
      const image = new Image();
      image.addEventListener("load", drawImages);
      image.src = address;
      pictures.set(address, image);
    }
    return pictures.get(address);
  }

  // Draw four panels, one below the other; `cut` is the part of the picture that belongs to the sub-window.
  function drawPanels(canvas, image, cut, axis) {
    const { pen, width, height, soft, ink, colour } = paper(canvas);
    const left = 46, bottom = 32, gap = 5, x = (t) => left + ((t - axis.from) / (axis.to - axis.from)) * (width - left);
    const panel = (height - bottom - 3 * gap) / 4;
    const ready = image.complete && image.naturalWidth > 0;
    content.images.panels.forEach((name, p) => {
      const top = p * (panel + gap), rowsEach = image.naturalHeight / 4;
      if (ready) pen.drawImage(image, cut[0], p * rowsEach, cut[1], rowsEach, left, top, width - left, panel);
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillStyle = soft;
      for (const hz of [5, 10, 15]) pen.fillText(String(hz), left - 5, top + panel * (1 - (hz - axis.low) / (axis.high - axis.low)));
      pen.save();
      pen.translate(8, top + panel / 2);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "center";
      pen.fillStyle = ink;
      pen.fillText(`${name}, Hz`, 0, 0);
      pen.restore();
      pen.strokeStyle = colour("--mark");
      pen.setLineDash([3, 2]);
      pen.lineWidth = 1;
      for (const mark of axis.marks) {
        pen.beginPath();
        pen.moveTo(x(mark), top);
        pen.lineTo(x(mark), top + panel);
        pen.stroke();
      }
      pen.setLineDash([]);
    });
    pen.fillStyle = soft;
    pen.textBaseline = "top";
    pen.textAlign = "center";
    for (const t of roundTimes(axis.from, axis.to, width - left)) {
      const half = pen.measureText(clock(t)).width / 2;
      pen.fillText(clock(t), Math.min(Math.max(x(t), half), width - half), height - bottom + 4);
    }
    pen.fillText("time of the recording (labelled: dashed)", (left + width) / 2, height - 14);
  }

  function drawImages() {
    const images = content.images, at = windows.nearest(state.t + state.page / 2, facts.label_s);
    if (!images) return;
    const own = images.windows[at];
    by("images").hidden = own === null;
    by("no-images").hidden = own !== null;
    if (own === null) return;
    const { window_s: windowS, label_s: labelS } = facts, marks = [windows.start[at], windows.start[at] + labelS];
    const middle = windows.start[at] + labelS / 2, from = middle - windowS / 2, half = (images.rows * images.row_s) / 2;
    const mel = { low: 0, high: images.mel_high_hz, from, to: from + images.mel_s, marks };
    drawPanels(by("mel"), picture(own.mel), [0, images.mel_columns], mel);
    const kaggle = { low: images.low_hz, high: images.high_hz, from: middle - half, to: middle + half, marks };
    drawPanels(by("kaggle"), picture(images.spectrogram), [own.row - images.first_row, images.rows], kaggle);
  }

  // ---- the place -------------------------------------------------------------------------------------------------
  const latest = () => Math.max(0, durationS - state.page);
  const near = () => stops.findIndex((stop) => Math.abs(stop.centre_s - state.t - state.page / 2) < 0.51);

  function settle() {
    state.t = Math.round(Math.min(Math.max(state.t, 0), latest()) * 100) / 100;
  }

  function remember() {
    const words = Object.keys(start).map((name) => `${name}=${state[name]}`);
    history.replaceState(null, "", `#${words.join("&")}`);
  }

  function recall(hash) {
    const before = state.page;
    for (const word of hash.slice(1).split("&")) {
      const [name, text] = word.split("="), value = Number(text);
      if (name === "montage" && montages.includes(text)) state.montage = text;
      if (name === "t" && text && Number.isFinite(value)) state.t = value;
      const allowed = { page: choices.page, high: [0, ...choices.high], low: [0, ...low], notch: [0, ...notches], uv: [0, ...choices.sensitivity] }[name];
      if (text && allowed?.includes(value)) state[name] = value;
    }
    if (!/[#&]t=/.test(hash)) state.t -= (state.page - before) / 2; // the middle stays
    settle();
  }

  function drawTimelines() {
    const place = [state.t, state.t + state.page];
    timelines.forEach(({ timeline, span }) => {
      const from = span >= durationS ? 0 : Math.min(Math.max(Math.floor((state.t - span / 2) / 60) * 60, 0), durationS - span);
      timeline.draw(from, Math.min(from + span, durationS), place);
    });
    by("timeline").setAttribute("aria-valuenow", String(Math.round(state.t)));
    by("timeline").setAttribute("aria-valuetext", `${clock(place[0])} to ${clock(place[1])}`);
  }

  function controls() {
    for (const name of ["page", "montage", "high", "low", "notch"]) by(name).value = String(state[name]);
    by("sensitivity").textContent = `${state.uv || "…"} µV/mm`;
    by("where").textContent = `${clock(state.t)}–${clock(state.t + state.page)}`;
    by("previous").disabled = state.t <= 0;
    by("next").disabled = state.t >= latest();
    by("stop").value = String(near());
    const filters = [state.high ? `${state.high} Hz` : "0 Hz", state.low ? `${state.low} Hz` : "open"].join(" to ");
    by("set").textContent = `${state.montage}, ${filters}${state.notch ? `, notch ${state.notch} Hz` : ""}`;
  }

  async function show() {
    const turn = ++asked;
    by("cursor").hidden = true;
    by("readout").textContent = by("readout").dataset.hint;
    controls();
    drawTimelines();
    say();
    explain();
    drawImages();
    remember();
    document.body.dataset.busy = "yes";
    try {
      const found = await traces();
      if (turn !== asked) return;
      shown = found;
      if (!state.uv) { state.uv = start.uv || fitting(); controls(); remember(); }
      drawTraces();
    } catch (error) {
      by("words").hidden = false;
      by("words").replaceChildren(made("p", `This browser cannot unpack the signal (${error.message}); a newer one can.`, ""));
    }
    document.body.dataset.busy = "";
  }

  function go(change) {
    Object.assign(state, change);
    settle();
    return show();
  }

  function turn(pages) { return go({ t: state.t + pages * state.page }); }

  function resize(step) {
    const at = choices.sensitivity.indexOf(state.uv);
    return go({ uv: choices.sensitivity[Math.min(Math.max(at + step, 0), choices.sensitivity.length - 1)] });
  }

  function stopAt(number) { return stops[number] && go({ t: stops[number].centre_s - state.page / 2 }); }

  function neighbour(step) {
    const middle = state.t + state.page / 2;
    const found = stops.map((stop, i) => [stop.centre_s - middle, i]).filter(([away]) => away * step > 0.51);
    found.sort((a, b) => Math.abs(a[0]) - Math.abs(b[0]));
    if (found.length) stopAt(found[0][1]);
  }

  // ---- cursor ----------------------------------------------------------------------------------------------------
  function read(x, y) {
    if (!shown) return;
    const place = geometry(by("traces")), plot = place.width - LEFT - 8;
    const sample = Math.round(((x - LEFT) / plot) * state.page * shown.hz);
    if (sample < 0 || sample >= shown.uv[0].length) return;
    let row = 0;
    shown.labels.forEach((_, other) => { if (Math.abs(place.y(other) - y) < Math.abs(place.y(row) - y)) row = other; });
    const value = shown.uv[row][sample], raw = shown.raw[row][sample], time = shown.t + sample / shown.hz;
    const word = (uv) => `${uv < 0 ? "−" : ""}${Math.abs(uv).toFixed(1)} µV`;
    const said = Number.isNaN(value) ? "no value" : word(value) + (sections().length ? `, unfiltered ${word(raw)}` : "");
    by("readout").textContent = `${clock(time, 3)}  ${shown.labels[row].label}: ${said}`;
    const cursor = by("cursor");
    cursor.hidden = false;
    cursor.style.left = `${place.x(time)}px`;
    cursor.style.top = `${place.y(row) - place.unit}px`;
    cursor.style.height = `${2 * place.unit}px`;
  }

  const canvas = by("traces");
  let pressed = null;
  canvas.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") read(event.offsetX, event.offsetY); });
  canvas.addEventListener("pointerdown", (event) => { pressed = [event.clientX, event.clientY]; });
  canvas.addEventListener("pointerup", (event) => {
    if (!pressed) return;
    const [dx, dy] = [event.clientX - pressed[0], event.clientY - pressed[1]];
    pressed = null;
    if (Math.abs(dx) > 40 && Math.abs(dx) > 1.5 * Math.abs(dy)) turn(dx < 0 ? 1 : -1);
    else if (Math.hypot(dx, dy) < 12) read(event.offsetX, event.offsetY);
  });
  canvas.addEventListener("pointercancel", () => { pressed = null; });

  function listen(timeline) {
    const jump = (event) => go({ t: timeline.second(event.offsetX) - state.page / 2 });
    let down = false;
    timeline.canvas.addEventListener("pointerdown", (event) => { down = true; timeline.canvas.setPointerCapture(event.pointerId); jump(event); });
    timeline.canvas.addEventListener("pointermove", (event) => { if (down) jump(event); });
    for (const name of ["pointerup", "pointercancel"]) timeline.canvas.addEventListener(name, () => { down = false; });
  }

  // ---- controls --------------------------------------------------------------------------------------------------
  function fill(name, values, text) {
    for (const value of values) {
      const option = made("option", text(value), "");
      option.value = String(value);
      by(name).append(option);
    }
    by(name).addEventListener("change", (event) => {
      const middle = state.t + state.page / 2, value = name === "montage" ? event.target.value : Number(event.target.value);
      go(name === "page" ? { page: value, t: middle - value / 2 } : { [name]: value });
    });
  }

  fill("page", choices.page, (s) => `${s} s`);
  fill("montage", montages, (name) => name);
  fill("high", [0, ...choices.high], (hz) => (hz ? `${hz} Hz` : "off"));
  fill("low", [0, ...low], (hz) => (hz ? `${hz} Hz` : "off"));
  fill("notch", [0, ...notches], (hz) => (hz ? `${hz} Hz` : "off"));
  by("notch").disabled = !notches.length;
  stops.forEach((stop, i) => {
    const option = made("option", stop.text, "");
    option.value = String(i);
    by("stop").append(option);
  });
  by("stop").disabled = !stops.length;
  by("stop").addEventListener("change", (event) => stopAt(Number(event.target.value)));
  const clicks = { previous: () => turn(-1), next: () => turn(1), lower: () => resize(1), higher: () => resize(-1) };
  for (const [id, act] of Object.entries(clicks)) by(id).addEventListener("click", act);
  document.addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLSelectElement || event.altKey || event.ctrlKey || event.metaKey) return;
    const actions = {
      ArrowLeft: () => (event.shiftKey ? go({ t: state.t - 1 }) : turn(-1)),
      ArrowRight: () => (event.shiftKey ? go({ t: state.t + 1 }) : turn(1)),
      PageUp: () => turn(-1), PageDown: () => turn(1), Home: () => go({ t: 0 }), End: () => go({ t: latest() }),
      ArrowUp: () => resize(-1), ArrowDown: () => resize(1), "+": () => resize(-1), "=": () => resize(-1), "-": () => resize(1),
      n: () => neighbour(1), p: () => neighbour(-1),
    };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });
  window.addEventListener("hashchange", (event) => { recall(new URL(event.newURL).hash); show(); });
  const redraw = () => { drawTimelines(); drawTraces(); drawImages(); };
  window.addEventListener("resize", redraw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);

  recall(location.hash);
  by("settings").open = !phone;
  const whole = new Timeline(by("timeline"), content, windows, drawTimelines);
  timelines.push({ timeline: whole, span: durationS });
  if (durationS > 7200) {
    by("hour").hidden = false;
    document.body.classList.add("long");
    timelines.push({ timeline: new Timeline(by("hour"), content, windows, drawTimelines), span: 3600 });
  }
  timelines.forEach(({ timeline }) => listen(timeline));
  // For the console: what is on the canvas as numbers, with the filters and the montage that are chosen.
  window.kagglehms = { page: traces, scale: () => canvasScale, state: () => ({ ...state }) };
  everything.then(show);
  controls();
  drawTimelines();
  say();
})();
