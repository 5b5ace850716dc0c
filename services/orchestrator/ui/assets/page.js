// The page's own scripts: the visitor's key, downloads, faults at their fields, the job in the address.
(() => {
  const COOKIE = "__KEY_COOKIE__";
  const ASKS_FOR_KEY = __AUTH__;
  const PATH = location.pathname.replace(/\/+$/, "");

  const key = () => {
    const found = document.cookie.split("; ").find((part) => part.startsWith(COOKIE + "="));
    return found ? decodeURIComponent(found.slice(COOKIE.length + 1)) : "";
  };
  const keep = (value, days) => {
    const secure = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `${COOKIE}=${encodeURIComponent(value)}; path=${PATH}; max-age=${days * 86400}; samesite=strict${secure}`;
  };
  const bearer = (value) => (value ? { Authorization: `Bearer ${value}` } : {});

  const make = (tag, properties = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), properties);
    element.append(...children);
    return element;
  };

  // The REST API's path is next to the page's.
  const api = PATH.replace(/\/ui$/, "");
  const problem = async (response) => {
    const said = await response.json().catch(() => ({}));
    return [said.title || `status ${response.status}`, said.detail].filter(Boolean).join(": ");
  };

  function askForKey(fault) {
    if (document.getElementById("dp-key")) return;
    const input = make("input", { type: "password", id: "dp-key-input", autocomplete: "off", spellcheck: false, placeholder: "dp_…" });
    const said = make("p", { className: "dp-fault", id: "dp-key-fault", role: "alert", textContent: fault || "" });
    input.setAttribute("aria-describedby", said.id);
    const form = make(
      "form", { method: "dialog" },
      make("h2", { textContent: "This service asks for an API key" }),
      make("p", { textContent: "Whoever runs it makes one with `dualprocess keys create`. It stays in this browser; the page uses it for nothing but this service." }),
      make("label", { htmlFor: input.id, textContent: "API key" }), input, said,
      make("button", { className: "dp-button dp-main", textContent: "Use this key" }),
    );
    const dialog = make("dialog", { id: "dp-key", className: "dp-dialog" }, form);
    dialog.setAttribute("aria-label", "API key");
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const value = input.value.trim();
      const answer = await fetch(`${api}/v1/models`, { headers: bearer(value) });
      if (!answer.ok) {
        said.textContent = await problem(answer);
        input.setAttribute("aria-invalid", "true");
        return;
      }
      keep(value, 30);
      location.reload();
    });
    document.body.append(dialog);
    dialog.showModal();
  }

  // A refusal of the key has this header. Gradio's own requests get one when the key is no longer valid.
  const plainFetch = window.fetch.bind(window);
  window.fetch = async (...request) => {
    const response = await plainFetch(...request);
    if (ASKS_FOR_KEY && response.headers.has("WWW-Authenticate") && String(response.url).includes("/gradio_api/")) {
      problem(response.clone()).then((said) => askForKey(key() ? said : ""));
    }
    return response;
  };

  async function download(link) {
    const response = await fetch(link.href, { headers: bearer(key()) });
    if (!response.ok) {
      link.after(make("p", { className: "dp-fault", role: "alert", textContent: await problem(response) }));
      return;
    }
    const url = URL.createObjectURL(await response.blob());
    make("a", { href: url, download: link.download }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60000);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-artifact]");
    if (link) {
      // Without a key the browser can download the file itself, without keeping it in memory.
      if (!key()) return;
      event.preventDefault();
      download(link);
    }
    if (event.target.closest?.("#dp-forget-key")) {
      keep("", 0);
      location.reload();
    }
  });

  // The field that shows a fault: the one with this path, or the one that contains it.
  function place(scope, path) {
    const aliases = { prompts: "prompt", specs: "prompt" };
    const parts = path.split(".");
    parts[0] = aliases[parts[0]] || parts[0];
    for (; parts.length; parts.pop()) {
      const found =
        document.querySelector(`[data-scope="${scope}"] [data-field="${CSS.escape(parts.join("."))}"]`) ||
        document.getElementById(`${scope}-${parts.join("-")}`);
      if (found) return found;
    }
    return null;
  }

  function unmark(scope) {
    document.querySelectorAll(`.dp-fault[data-of="${scope}"]`).forEach((note) => {
      const input = document.querySelector(`[aria-describedby="${note.id}"]`);
      input?.removeAttribute("aria-invalid");
      input?.removeAttribute("aria-describedby");
      note.closest(".dp-faulty")?.classList.remove("dp-faulty");
      note.remove();
    });
  }

  function mark(scope, faults) {
    unmark(scope);
    let first = null;
    faults.fields.forEach((fault, index) => {
      const spot = place(scope, fault.field);
      if (!spot) return;
      const note = make("p", { className: "dp-fault", id: `${scope}-fault-${index}`, textContent: fault.message });
      note.dataset.of = scope;
      const input = spot.matches("input,textarea,select") ? spot : spot.querySelector("input,textarea,select,button");
      const home = spot.matches("input,textarea,select") ? spot.parentElement : spot;
      home.append(note);
      home.classList.add("dp-faulty");
      input?.setAttribute("aria-invalid", "true");
      input?.setAttribute("aria-describedby", note.id);
      input?.addEventListener("input", () => note.remove(), { once: true });
      for (let box = spot.closest("details:not([open])"); box; box = box.closest("details:not([open])")) box.open = true;
      first = first || input || spot;
    });
    return first;
  }

  function remember(job) {
    const address = new URL(location);
    job ? address.searchParams.set("job", job) : address.searchParams.delete("job");
    history.replaceState(null, "", address);
    document.title = job ? `dualprocess · ${job.slice(-6)}` : "dualprocess";
    const panel = document.getElementById("dp-panel-head");
    // On a phone the job is below the fields.
    if (job && panel?.getBoundingClientRect().top > innerHeight) panel.scrollIntoView({ behavior: "smooth" });
  }

  window.dualprocess = {
    make,
    mark,
    remember,
    addressed: () => new URLSearchParams(location.search).get("job") || "",
  };

  function begin() {
    if (ASKS_FOR_KEY && !key()) askForKey("");
    document.documentElement.classList.toggle("dp-with-key", Boolean(ASKS_FOR_KEY && key()));
  }
  document.readyState === "loading" ? addEventListener("DOMContentLoaded", begin) : begin();
})();
