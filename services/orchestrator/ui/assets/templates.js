// Cards of tasks to begin with: one is chosen.
element.addEventListener("click", (event) => {
  const card = event.target.closest("button[data-template]");
  if (!card) return;
  props.value = card.dataset.template;
  show();
  trigger("choose");
});
function show() {
  const chosen = element.querySelector(`button[data-template="${props.value}"]`);
  element.querySelector(".dp-about").textContent = chosen ? chosen.title : "";
  element.querySelectorAll("button[data-template]").forEach((card) =>
    card.setAttribute("aria-pressed", String(card.dataset.template === props.value)),
  );
}
watch("value", show);
show();
