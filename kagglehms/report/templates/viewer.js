"use strict";
// Draws one sub-window of an EEG and steps to the others. Everything it needs is in the page.
(() => {
  const content = JSON.parse(document.getElementById("content").textContent);
  const { facts, windows, derivations, rows } = content;
  const by = (id) => document.getElementById(id);
  const colours = { LL: "#3d85c6", LP: "#3d85c6", RL: "#d1534f", RP: "#d1534f", midline: "#8a8f98", EKG: "#d98324" };
  const bytes = Uint8Array.from(atob(content.eeg.samples), (c) => c.charCodeAt(0));
  const samples = new DataView(bytes.buffer);
  const uv = (row, column) => {
    const value = samples.getInt16(2 * (row * content.eeg.n + column), true);
    return value === -32768 ? NaN : value * content.eeg.step_uv;
  };
  const state = {
    at: content.start,
    span: window.innerWidth < 600 ? 10 : 20,
    sensitivity: content.sensitivities_uv.indexOf(content.sensitivity_uv),
  };
  const pictures = new Map();

  function picture(uri) {
    if (!pictures.has(uri)) {
      const image = new Image();
      image.addEventListener("load", draw);
      image.src = uri;
      pictures.set(uri, image);
    }
    return pictures.get(uri);
  }

  function paper(canvas) {
    const ratio = window.devicePixelRatio || 1;
    const width = canvas.clientWidth, height = canvas.clientHeight;
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
    return { pen, width, height, ink: colour("--ink"), soft: colour("--soft"), rule: colour("--rule") };
  }

  function drawTraces(shown) {
    const { pen, width, height, ink, soft, rule } = paper(by("traces"));
    const left = 58, right = 44, top = 6, bottom = 34;
    const begin = (facts.window_s - state.span) / 2, end = begin + state.span;
    const x = (t) => left + ((t - begin) / (end - begin)) * (width - left - right);
    const last = rows[rows.length - 1];
    const unit = (height - top - bottom) / (last + 2.4);
    const y = (row) => top + (row + 1.2) * unit;
    const labelled = [(facts.window_s - facts.label_s) / 2, (facts.window_s + facts.label_s) / 2];
    pen.fillStyle = "rgba(217, 131, 36, 0.13)";
    const from = x(Math.max(labelled[0], begin)), to = x(Math.min(labelled[1], end));
    pen.fillRect(from, top, to - from, height - top - bottom);
    const every = state.span > 20 ? 5 : state.span > 10 ? 2 : 1;
    pen.textAlign = "center";
    pen.textBaseline = "top";
    for (let t = begin; t <= end + 1e-9; t += 1) {
      pen.strokeStyle = rule;
      pen.lineWidth = (t - begin) % every === 0 ? 1 : 0.4;
      pen.beginPath();
      pen.moveTo(x(t), top);
      pen.lineTo(x(t), height - bottom);
      pen.stroke();
      pen.fillStyle = soft;
      const label = String(Math.round((shown.offset_s + t) * 100) / 100);
      if ((t - begin) % every === 0) pen.fillText(label, x(t), height - bottom + 4);
    }
    pen.fillText("seconds of the EEG", (left + width - right) / 2, height - 14);
    const spacing = content.sensitivities_uv[state.sensitivity];
    const first = Math.round((shown.offset_s - content.eeg.first_s + begin) * content.eeg.hz);
    const count = Math.round(state.span * content.eeg.hz);
    derivations.forEach((derivation, row) => {
      let gain = 1 / spacing;
      if (derivation.group === "EKG") {
        let largest = 0;
        for (let i = 0; i < count; i++) largest = Math.max(largest, Math.abs(uv(row, first + i)) || 0);
        gain = largest > 0.001 ? 0.7 / largest : gain;
      }
      pen.strokeStyle = colours[derivation.group];
      pen.lineWidth = 1;
      pen.lineJoin = "round";
      pen.beginPath();
      let down = false;
      for (let i = 0; i < count && first + i < content.eeg.n; i++) {
        const value = uv(row, first + i);
        if (Number.isNaN(value)) { down = false; continue; }
        const level = y(rows[row] + Math.min(Math.max(value * gain, -1.5), 1.5));
        const at = x(begin + i / content.eeg.hz);
        if (down) pen.lineTo(at, level); else pen.moveTo(at, level);
        down = true;
      }
      pen.stroke();
      pen.fillStyle = ink;
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillText(derivation.label, left - 6, y(rows[row]));
    });
    const barAt = width - right + 10, barFrom = y(last - 3);
    pen.fillStyle = ink;
    pen.fillRect(barAt, barFrom, 2.5, unit);
    pen.textAlign = "left";
    pen.fillText(String(spacing), barAt + 6, barFrom + unit / 2 - 6);
    pen.fillText("µV", barAt + 6, barFrom + unit / 2 + 7);
  }

  // Draw four panels, one below the other; `cut` is the part of the picture that belongs to the sub-window.
  function drawPanels(canvas, image, cut, axis) {
    const { pen, width, height, soft, ink } = paper(canvas);
    const left = 46, bottom = 32, gap = 5;
    const panel = (height - bottom - 3 * gap) / 4;
    const ready = image.complete && image.naturalWidth > 0;
    pen.imageSmoothingEnabled = false;
    facts.panels.forEach((name, p) => {
      const top = p * (panel + gap);
      const rowsEach = image.naturalHeight / 4;
      if (ready) pen.drawImage(image, cut[0], p * rowsEach, cut[1], rowsEach, left, top, width - left, panel);
      pen.textAlign = "right";
      pen.textBaseline = "middle";
      pen.fillStyle = soft;
      for (const hz of [5, 10, 15]) {
        const at = top + panel * (1 - (hz - axis.low) / (axis.high - axis.low));
        pen.fillText(String(hz), left - 5, at);
      }
      pen.save();
      pen.translate(8, top + panel / 2);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "center";
      pen.fillStyle = ink;
      pen.fillText(`${name}, Hz`, 0, 0);
      pen.restore();
      pen.strokeStyle = "rgba(255, 255, 255, 0.9)";
      pen.setLineDash([3, 2]);
      pen.lineWidth = 1;
      for (const mark of axis.marks) {
        const at = left + (mark / axis.length) * (width - left);
        pen.beginPath();
        pen.moveTo(at, top);
        pen.lineTo(at, top + panel);
        pen.stroke();
      }
      pen.setLineDash([]);
    });
    pen.fillStyle = soft;
    pen.textBaseline = "top";
    axis.ticks.forEach((tick, i) => {
      pen.textAlign = i === 0 ? "left" : i === axis.ticks.length - 1 ? "right" : "center";
      pen.fillText(String(tick), left + (tick / axis.length) * (width - left), height - bottom + 4);
    });
    pen.textAlign = "center";
    pen.fillText(axis.name, (left + width) / 2, height - 14);
  }

  function drawVotes(shown) {
    const box = by("votes");
    box.replaceChildren();
    const add = (tag, text, name) => {
      const made = document.createElement(tag);
      if (text !== null) made.textContent = text;
      if (name) made.className = name;
      return made;
    };
    by("votes-title").textContent = shown.votes
      ? `Votes: ${shown.consensus}`
      : "A test recording, whose votes are not known";
    if (!shown.votes) return;
    const total = shown.votes.reduce((a, b) => a + b, 0);
    content.classes.forEach((name, k) => {
      const track = add("span", null, "track");
      const bar = add("i", null, "");
      bar.style.width = `${(100 * shown.votes[k]) / total}%`;
      track.append(bar);
      let figures = String(shown.votes[k]);
      if (shown.prediction) {
        const predicted = add("i", null, "predicted");
        predicted.style.width = `${100 * shown.prediction[k]}%`;
        track.append(predicted);
        figures += ` · ${shown.prediction[k].toFixed(3)}`;
      }
      box.append(add("span", name, ""), track, add("span", figures, "soft"));
    });
    const legend = add("span", null, "soft");
    legend.style.gridColumn = "1 / -1";
    legend.append(add("span", null, "key"), `votes, n = ${total}`);
    if (shown.prediction) legend.append(add("span", null, "key predicted"), `${content.who}, out of fold`);
    box.append(legend);
  }

  function draw() {
    const shown = windows[state.at];
    drawTraces(shown);
    const mel = picture(shown.mel);
    drawPanels(by("mel"), mel, [0, facts.mel_columns], {
      low: 0, high: facts.mel_high_hz, length: facts.mel_s, ticks: [0, 10, 20, 30, 40], name: "seconds of the window",
      marks: [(facts.window_s - facts.label_s) / 2, (facts.window_s + facts.label_s) / 2],
    });
    const minutes = (facts.rows * facts.row_s) / 60;
    const cut = [shown.row - content.spectrogram.first_row, facts.rows];
    drawPanels(by("kaggle"), picture(content.spectrogram.image), cut, {
      low: facts.low_hz, high: facts.high_hz, length: minutes, ticks: [0, 2, 4, 6, 8, 10], name: "minutes",
      marks: [minutes / 2 - facts.label_s / 120, minutes / 2 + facts.label_s / 120],
    });
    by("sensitivity").textContent = `${content.sensitivities_uv[state.sensitivity]} µV`;
  }

  function show(at) {
    state.at = Math.min(Math.max(at, 0), windows.length - 1);
    const shown = windows[state.at];
    by("choose").value = String(state.at);
    by("previous").disabled = state.at === 0;
    by("next").disabled = state.at === windows.length - 1;
    by("where").textContent = `${shown.offset_s}–${shown.offset_s + facts.window_s} s`;
    drawVotes(shown);
    draw();
  }

  function resize(step) {
    state.sensitivity = Math.min(Math.max(state.sensitivity + step, 0), content.sensitivities_uv.length - 1);
    draw();
  }

  windows.forEach((shown, i) => {
    const option = document.createElement("option");
    option.value = String(i);
    option.textContent = shown.title;
    by("choose").append(option);
  });
  by("previous").addEventListener("click", () => show(state.at - 1));
  by("next").addEventListener("click", () => show(state.at + 1));
  by("choose").addEventListener("change", (event) => show(Number(event.target.value)));
  by("span").addEventListener("change", (event) => { state.span = Number(event.target.value); draw(); });
  by("lower").addEventListener("click", () => resize(1));
  by("higher").addEventListener("click", () => resize(-1));
  document.addEventListener("keydown", (event) => {
    if (event.target instanceof HTMLSelectElement || event.altKey || event.ctrlKey || event.metaKey) return;
    const actions = {
      ArrowLeft: () => show(state.at - 1), ArrowRight: () => show(state.at + 1),
      ArrowUp: () => resize(-1), ArrowDown: () => resize(1),
    };
    if (actions[event.key]) { event.preventDefault(); actions[event.key](); }
  });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  by("span").value = String(state.span);
  show(state.at);
})();
