// Labels on the image that can be dragged, or moved with the arrow keys.
const { make } = window.dualprocess;
const STEP = 0.02;
const field = make("div", { className: "dp-marks" });
element.append(field);
let marks = [];
const inside = (value) => Math.min(1, Math.max(0, value));

function tell() {
  props.value = marks.map((mark) => ({ ...mark }));
  trigger("move");
}
function put(button, mark) {
  button.style.left = `${mark.x * 100}%`;
  button.style.top = `${mark.y * 100}%`;
  button.setAttribute("aria-label",
    `${mark.label}: ${Math.round(mark.x * 100)} % from the left, ${Math.round(mark.y * 100)} % from the top. Move it with the arrow keys.`);
}
function show() {
  field.replaceChildren(...marks.map((mark) => {
    const button = make("button", { type: "button", textContent: mark.label });
    put(button, mark);
    let dragged = false;
    button.addEventListener("pointerdown", (event) => { button.setPointerCapture(event.pointerId); dragged = true; });
    button.addEventListener("pointermove", (event) => {
      if (!dragged) return;
      const box = field.getBoundingClientRect();
      mark.x = inside((event.clientX - box.left) / box.width);
      mark.y = inside((event.clientY - box.top) / box.height);
      put(button, mark);
    });
    button.addEventListener("pointerup", () => { dragged = false; tell(); });
    button.addEventListener("keydown", (event) => {
      const by = { ArrowLeft: [-STEP, 0], ArrowRight: [STEP, 0], ArrowUp: [0, -STEP], ArrowDown: [0, STEP] }[event.key];
      if (!by) return;
      event.preventDefault();
      mark.x = inside(mark.x + by[0]);
      mark.y = inside(mark.y + by[1]);
      put(button, mark);
      tell();
    });
    return button;
  }));
}
function take() {
  const given = props.value || [];
  if (JSON.stringify(given) === JSON.stringify(marks)) return;
  marks = given.map((mark) => ({ ...mark }));
  show();
}
watch("value", take);
take();
