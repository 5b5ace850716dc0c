// Drawing over the image by hand: white is clear, whatever else is drawn lies over the image.
(() => {
  const SIDE = 512;

  const load = (url) => new Promise((resolve, reject) => {
    const image = new Image();
    image.onload = () => resolve(image);
    image.onerror = () => reject(new Error("this is no picture"));
    image.src = url;
  });

  // On white, upright. Shrunk is only what is large as a file: thin lines pale when they shrink here.
  async function readPicture(file) {
    const url = URL.createObjectURL(file);
    try {
      const image = await load(url);
      const whole = onCanvas(image, 4096);
      return whole.length <= 700_000 ? whole : onCanvas(image, 1024);
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  function onCanvas(image, side) {
    const scale = Math.min(1, side / Math.max(image.width, image.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(image.width * scale));
    canvas.height = Math.max(1, Math.round(image.height * scale));
    onWhite(canvas).drawImage(image, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/png");
  }

  function onWhite(canvas) {
    const pen = canvas.getContext("2d");
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, canvas.width, canvas.height);
    return pen;
  }

  async function draw(row, done) {
    const { make } = window.dualprocess;
    const canvas = make("canvas", { width: SIDE, height: SIDE, className: "dp-canvas" });
    canvas.setAttribute("aria-label", "Drawing area. Draw with a pointer; without one, upload a picture instead.");
    canvas.setAttribute("role", "img");
    const pen = onWhite(canvas);
    if (row.drawing) {
      const image = await load(row.drawing);
      pen.imageSmoothingEnabled = image.width > 128;
      pen.drawImage(image, 0, 0, SIDE, SIDE);
    }
    const past = [];
    const colour = make("input", { type: "color", value: "#ff0000" });
    const width = make("input", { type: "range", min: 2, max: 60, value: 12 });
    const rubber = make("input", { type: "checkbox" });
    const undo = make("button", { type: "button", className: "dp-button", textContent: "Undo" });
    const clear = make("button", { type: "button", className: "dp-button", textContent: "Clear" });
    const cancel = make("button", { type: "button", className: "dp-button", textContent: "Cancel" });
    const keep = make("button", { type: "button", className: "dp-button dp-main", textContent: "Keep it" });
    const save = () => { past.push(pen.getImageData(0, 0, SIDE, SIDE)); if (past.length > 20) past.shift(); };
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) * SIDE / box.width, (event.clientY - box.top) * SIDE / box.height];
    };
    let drawing = false;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      save();
      drawing = true;
      Object.assign(pen, { lineCap: "round", lineJoin: "round", lineWidth: Number(width.value), strokeStyle: rubber.checked ? "#fff" : colour.value });
      pen.beginPath();
      pen.moveTo(...at(event));
      pen.lineTo(...at(event));
      pen.stroke();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!drawing) return;
      pen.lineTo(...at(event));
      pen.stroke();
    });
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { drawing = false; });
    undo.addEventListener("click", () => { if (past.length) pen.putImageData(past.pop(), 0, 0); });
    clear.addEventListener("click", () => { save(); onWhite(canvas); });
    const dialog = make(
      "dialog", { className: "dp-dialog dp-draw" },
      make("h2", { textContent: "Draw over the image" }),
      make("p", { textContent: "White is clear; everything else covers the image when the question is asked." }),
      canvas,
      make("div", { className: "dp-tools" },
        make("label", {}, "Colour ", colour), make("label", {}, "Width ", width), make("label", {}, rubber, " Rubber"), undo, clear),
      make("div", { className: "dp-tools dp-end" }, cancel, keep),
    );
    dialog.setAttribute("aria-label", "Draw over the image");
    const close = () => { dialog.close(); dialog.remove(); };
    cancel.addEventListener("click", close);
    dialog.addEventListener("close", () => dialog.remove());
    keep.addEventListener("click", () => { done(canvas.toDataURL("image/png")); close(); });
    document.body.append(dialog);
    dialog.showModal();
  }

  Object.assign(window.dualprocess, { draw, readPicture });
})();
