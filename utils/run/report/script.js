"use strict";

// Charts: the points at the step nearest to the pointer, or the one that the arrow keys reach
for (const svg of document.querySelectorAll(".chart svg")) {
  const dots = [...svg.querySelectorAll("circle")], cursor = svg.querySelector(".cursor");
  const output = svg.parentElement.querySelector("output"), before = output.textContent;
  const places = [...new Set(dots.map(dot => +dot.getAttribute("cx")))].sort((a, b) => a - b);
  let current = places.length;

  function show(number) {
    current = Math.max(0, Math.min(places.length - 1, number));
    const near = dots.filter(dot => +dot.getAttribute("cx") === places[current]);
    for (const dot of dots) dot.classList.toggle("near", near.includes(dot));
    cursor.removeAttribute("hidden");
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, places[current]);
    const values = near.map(dot => `${dot.dataset.name} ${dot.dataset.value}`).join(", ");
    output.textContent = `step ${(+near[0].dataset.step).toLocaleString("en")}: ${values}`;
  }

  function leave() {
    current = places.length;
    for (const dot of dots) dot.classList.remove("near");
    cursor.setAttribute("hidden", "");
    output.textContent = before;
  }

  function point(event) {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const distances = places.map(place => Math.abs(place - x));
    show(distances.indexOf(Math.min(...distances)));
  }

  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  svg.addEventListener("pointerleave", event => { if (event.pointerType === "mouse") leave(); });
  svg.addEventListener("blur", leave);
  svg.addEventListener("keydown", event => {
    const move = {ArrowLeft: current - 1, ArrowRight: current + 1, Home: 0, End: places.length - 1}[event.key];
    if (move === undefined) return;
    event.preventDefault();
    show(move);
  });
}

// Confusion matrix: drawn on a canvas, since 150 classes have 22,500 cells
const canvas = document.getElementById("matrix");
if (canvas) {
  const {classes, counts} = JSON.parse(document.getElementById("counts").textContent);
  const totals = counts.map(row => row.reduce((sum, count) => sum + count, 0)), size = classes.length;
  const readout = document.getElementById("cell"), pen = canvas.getContext("2d"), hasNames = size <= 40;
  let cell = 0, left = 0, top = 0, selected = null;

  function shorten(text, width) {
    if (pen.measureText(text).width <= width) return text;
    while (text.length > 1 && pen.measureText(text + "…").width > width) text = text.slice(0, -1);
    return text + "…";
  }

  function draw() {
    const style = getComputedStyle(document.documentElement), color = name => style.getPropertyValue(name).trim();
    const room = canvas.parentElement.clientWidth, font = room < 600 ? 10 : 12;
    const family = getComputedStyle(document.body).fontFamily, limit = room < 600 ? 76 : 120;
    pen.font = `${font}px ${family}`;
    const longest = Math.max(...classes.map(name => pen.measureText(name).width));
    left = hasNames ? Math.min(limit, Math.ceil(longest) + 8) : 0;
    top = left;
    cell = Math.max(hasNames ? 11 : 5, Math.min(hasNames ? 46 : 12, Math.floor((room - left - 2) / size)));
    const width = left + cell * size + 2, height = top + cell * size + 2, ratio = window.devicePixelRatio || 1;
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    pen.scale(ratio, ratio);
    pen.font = `${font}px ${family}`;
    pen.textBaseline = "middle";
    for (let row = 0; row < size; row++) drawRow(row, color, family);
    if (hasNames) drawNames(color("--text"), font);
    if (selected) {
      pen.strokeStyle = color("--text");
      pen.lineWidth = 2;
      pen.strokeRect(left + selected[1] * cell, top + selected[0] * cell, cell, cell);
    }
    canvas.dataset.cell = cell;
    canvas.dataset.left = left;
    canvas.dataset.top = top;
  }

  function drawRow(row, color, family) {
    const gap = cell > 8 ? 1 : 0;
    for (let column = 0; column < size; column++) {
      const x = left + column * cell, y = top + row * cell, share = totals[row] ? counts[row][column] / totals[row] : 0;
      pen.fillStyle = color("--inset");
      pen.fillRect(x, y, cell - gap, cell - gap);
      if (!share) continue;
      pen.globalAlpha = Math.pow(share, 0.6);  // small shares stay visible
      pen.fillStyle = color(row === column ? "--right" : "--wrong");
      pen.fillRect(x, y, cell - gap, cell - gap);
      pen.globalAlpha = 1;
      if (cell < 18 || share < 0.005) continue;
      pen.fillStyle = share > 0.3 ? "#ffffff" : color("--text");
      pen.textAlign = "center";
      const font = pen.font;
      pen.font = `${Math.min(12, Math.round(cell * 0.45))}px ${family}`;
      pen.fillText(Math.round(100 * share), x + (cell - gap) / 2, y + (cell - gap) / 2 + 1);
      pen.font = font;
    }
  }

  function drawNames(color, font) {
    pen.fillStyle = color;
    for (let number = 0; number < size; number++) {
      const name = shorten(classes[number], left - 8), middle = number * cell + cell / 2;
      pen.textAlign = "right";
      pen.fillText(name, left - 5, top + middle);
      pen.save();
      pen.translate(left + middle, top - 5);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(name, 0, 0);
      pen.restore();
    }
  }

  function select(row, column) {
    if (row < 0 || column < 0 || row >= size || column >= size) return;
    selected = [row, column];
    const count = counts[row][column], share = totals[row] ? `${(100 * count / totals[row]).toFixed(1)} %` : "none";
    readout.textContent = `true ${classes[row]}, predicted ${classes[column]}: ${share} of ${classes[row]}, ` +
      `${count.toLocaleString("en")} of ${totals[row].toLocaleString("en")} pixels`;
    draw();
  }

  function point(event) {
    const box = canvas.getBoundingClientRect();
    select(Math.floor((event.clientY - box.top - top) / cell), Math.floor((event.clientX - box.left - left) / cell));
  }

  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("keydown", event => {
    const move = {ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0]}[event.key];
    if (!move) return;
    event.preventDefault();
    select(...(selected ? [selected[0] + move[0], selected[1] + move[1]] : [0, 0]));
  });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  draw();
}

// Images: one view for all, and the next view of one by a click
const samples = [...document.querySelectorAll(".sample")], radios = [...document.querySelectorAll("[name=view]")];
const order = ["input", "truth", "prediction", "errors"];
for (const radio of radios) {
  radio.addEventListener("change", () => { for (const sample of samples) sample.dataset.view = radio.value; });
}
for (const sample of samples) {
  sample.querySelector(".stage").addEventListener("click", () => {
    const known = order.filter(view => sample.querySelector(`.layer.${view}`));
    sample.dataset.view = known[(known.indexOf(sample.dataset.view) + 1) % known.length];
  });
}
const opacity = document.getElementById("opacity");
if (opacity) {
  opacity.addEventListener("input", () => {
    document.documentElement.style.setProperty("--opacity", opacity.value / 100);
  });
}
if (window.matchMedia("(min-width: 900px)").matches) {
  const all = radios.find(radio => radio.value === "all");
  if (all) all.click();
}
