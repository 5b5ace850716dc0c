// Cards of jobs: a click says which.
element.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  if (button.dataset.ask && !confirm(button.dataset.ask)) return;
  trigger("act", { what: button.dataset.do, job: button.dataset.job });
});
