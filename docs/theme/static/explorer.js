"use strict";
// Draws the curves that the build exported from the real implementation; computes no loss itself.
(() => {
  const data = window.APTT_EXPLORER;
  const box = document.getElementById("explorer");
  if (!data || !box) return;
  const W = 360, H = 230, L = 52, R = 6, B = 24, T = 8;
  const $ = (tag, attributes = {}, ns = false) => {
    const e = ns ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
    return e;
  };
  const short = (v) => (v === null ? "unset" : typeof v === "number" ? Number(v.toPrecision(4)).toString() : String(v));
  const controls = $("div", { class: "explorer" }), panels = $("div", { class: "panels" });
  const pick = $("select", { id: "loss" }), wrap = $("label");
  wrap.append("loss", pick);
  for (const name of Object.keys(data)) pick.append(new Option(name, name));
  const fit = $("input", { type: "checkbox", id: "fit" }), fitted = $("label", { class: "switch" });
  fit.checked = true;
  fit.addEventListener("change", draw);
  fitted.append(fit, "fit the scale to these two curves, not to all");
  const note = $("p", { class: "note", id: "note" });
  box.append(controls, note, panels);

  let inputs = [], where;
  function labelled(text, input) {
    const label = $("label"), out = $("output"), line = $("span");
    line.append(text + " ", out);
    label.append(line, input);
    input.addEventListener("input", draw);
    controls.append(label);
    return { input, out };
  }
  const range = (id, count, at) => {
    const input = $("input", { type: "range", min: 0, max: count - 1, step: 1, id });
    input.value = at;
    return input;
  };
  function option(o) {
    const id = "option-" + o.name;
    if (o.values.every((v) => v === null || typeof v === "number")) return labelled(o.name, range(id, o.values.length, o.usual));
    const list = $("select", { id });
    o.values.forEach((v, k) => list.append(new Option(short(v), k)));
    list.value = o.usual;
    return labelled(o.name, list);
  }
  function say({ input, out }, text) {
    if (input.type !== "range") return;
    out.textContent = text;
    input.setAttribute("aria-valuetext", text);
  }
  function setUp() {
    const loss = data[pick.value], bends = loss.options.length > 0;
    controls.replaceChildren(wrap);
    inputs = loss.options.map(option);
    where = labelled(loss.across, range("position", loss.at.length, Math.round(loss.at.length * 0.4)));
    if (bends) controls.append(fitted);
    note.textContent = bends ? "" : `${pick.value} has no option that bends this curve.`;
    draw();
  }
  function curve(loss, picked) {
    let index = 0;
    loss.options.forEach((o, k) => { index = index * o.values.length + picked[k]; });
    return loss.curves[index];
  }
  function draw() {
    const loss = data[pick.value], picked = inputs.map((s) => Number(s.input.value)), i = Number(where.input.value);
    inputs.forEach((s, k) => say(s, short(loss.options[k].values[picked[k]])));
    say(where, short(loss.at[i]));
    const now = curve(loss, picked), usual = curve(loss, loss.options.map((o) => o.usual));
    panels.replaceChildren(
      panel("value", "loss", 0, loss, now, usual, i), panel("gradient", "gradient", 1, loss, now, usual, i));
  }
  function ticks(low, high, most) {
    const rough = (high - low) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * ([1, 2, 5].find((m) => m * power >= rough) || 10), made = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9 * step; k++) made.push(Number((k * step).toPrecision(6)));
    return made;
  }
  function panel(id, title, which, loss, now, usual, i) {
    const shown = fit.checked ? [now, usual] : loss.curves, all = shown.filter(Boolean).flatMap((c) => c[which]);
    let low = Math.min(...all), high = Math.max(...all);
    const least = 0.2 * Math.max(Math.abs(low), Math.abs(high)) || 1; // a constant shall look like one
    if (high - low < least) { const middle = (low + high) / 2; low = middle - least / 2; high = middle + least / 2; }
    const span = high - low, first = loss.at[0], last = loss.at[loss.at.length - 1];
    const x = (v) => L + ((v - first) / (last - first)) * (W - L - R);
    const y = (v) => T + (1 - (v - low) / span) * (H - T - B);
    const svg = $("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": `${title} along ${loss.across}` }, true);
    const mark = (v, px, py, anchor, kind) => {
      const t = $("text", { x: px, y: py, "text-anchor": anchor, class: kind }, true);
      t.textContent = v;
      svg.append(t);
    };
    for (const v of ticks(low, high, 5)) {
      svg.append($("path", { class: v === 0 ? "axis" : "grid", d: `M${L} ${y(v).toFixed(1)}H${W - R}` }, true));
      mark(v, L - 6, y(v) + 4, "end", "tick-y");
    }
    for (const v of ticks(first, last, 6)) {
      svg.append($("path", { class: "axis", d: `M${x(v).toFixed(1)} ${H - B}v4` }, true));
      mark(v, x(v), H - 6, "middle", "tick-x");
    }
    svg.append($("path", { class: "axis", d: `M${L} ${T}V${H - B}H${W - R}` }, true));
    const line = (c, kind) => c && svg.append($("polyline", { class: kind, points: c[which].map((v, k) => `${x(loss.at[k]).toFixed(1)},${y(v).toFixed(1)}`).join(" ") }, true));
    line(usual, "usual"); line(now, "now");
    const figure = $("figure"), caption = $("figcaption", { id });
    if (now) {
      svg.append($("circle", { cx: x(loss.at[i]), cy: y(now[which][i]), r: 4 }, true));
      caption.textContent = `${title} ${now[which][i]}`;
    } else { caption.textContent = `${title}: these options do not go together`; }
    figure.append(caption, svg);
    return figure;
  }
  function wanted() {
    const names = [decodeURIComponent(location.hash.slice(1)), new URLSearchParams(location.search).get("loss")];
    return names.find((name) => name && Object.hasOwn(data, name));
  }
  pick.addEventListener("change", () => { history.replaceState(null, "", "#" + pick.value); setUp(); });
  window.addEventListener("hashchange", () => { const name = wanted(); if (name && name !== pick.value) { pick.value = name; setUp(); } });
  pick.value = wanted() || "focal_loss";
  setUp();
})();
