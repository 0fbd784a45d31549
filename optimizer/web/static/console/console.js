"use strict";

// What the console does beyond plain pages: a menu on small screens, and figures that keep themselves current.

document.documentElement.classList.add("scripted");

for (const button of document.querySelectorAll("[data-menu]")) {
  const menu = document.getElementById(button.getAttribute("aria-controls"));
  button.addEventListener("click", () => {
    const open = menu.classList.toggle("open");
    button.setAttribute("aria-expanded", String(open));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && menu.classList.contains("open")) {
      menu.classList.remove("open");
      button.setAttribute("aria-expanded", "false");
      button.focus();
    }
  });
}

// What is to be copied is chosen as a whole; the button is there only where the browser lets scripts copy.

const made = new WeakMap();

for (const part of document.querySelectorAll("[data-live][id]")) {
  // As the server made it: what is done to it here is no news.
  made.set(part, part.outerHTML);
}

function offerCopies(root) {
  for (const button of root.querySelectorAll("[data-copy]")) {
    button.hidden = navigator.clipboard === undefined;
  }
}

function choose(source) {
  if (source instanceof HTMLInputElement) {
    source.select();
  } else {
    window.getSelection().selectAllChildren(source);
  }
}

offerCopies(document);

document.addEventListener("focusin", (event) => {
  if (event.target.id && document.querySelector(`[data-copy="${CSS.escape(event.target.id)}"]`)) {
    choose(event.target);
  }
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (button !== null) {
    const source = document.getElementById(button.dataset.copy);
    choose(source);
    await navigator.clipboard.writeText(source.value ?? source.textContent);
    button.textContent = button.dataset.done;
  }
});

// A button whose answer takes a moment says so, and is pressed once.

for (const button of document.querySelectorAll("button[data-busy]")) {
  button.form.addEventListener("submit", (event) => {
    if (event.submitter === button) {
      button.textContent = button.dataset.busy;
      // The form has been read by then.
      window.setTimeout(() => { button.disabled = true; });
    }
  });
}

// Parts of a page marked data-live are replaced by those of the same page loaded anew. A part that is still being worked
// out (data-pending) never replaces one that has figures, and what somebody is using is left alone.

const page = document.querySelector("main[data-refresh]");
const PENDING_SECONDS = 1.5;

function seconds() {
  return document.querySelector("[data-live][data-pending]") ? PENDING_SECONDS : Number(page.dataset.refresh);
}

function tell(words) {
  const fault = document.getElementById("refresh-fault");
  fault.hidden = words === "";
  fault.textContent = words;
}

function renew(fresh) {
  for (const old of document.querySelectorAll("[data-live][id]")) {
    const part = fresh.getElementById(old.id);
    const worse = part !== null && part.hasAttribute("data-pending") && !old.hasAttribute("data-pending");
    const news = part === null ? undefined : part.outerHTML;
    if (part === null || worse || old.contains(document.activeElement) || made.get(old) === news) {
      continue;
    }
    const opened = [...old.querySelectorAll("details")].map((one) => one.open);
    part.querySelectorAll("details").forEach((one, place) => {
      one.open = opened[place] ?? one.open;
    });
    old.replaceWith(document.adoptNode(part));
    made.set(part, news);
    offerCopies(part);
  }
}

async function refresh() {
  if (document.hidden) {
    return true;
  }
  try {
    const answer = await fetch(window.location.href, { redirect: "manual", cache: "no-store" });
    if (answer.type === "opaqueredirect" || answer.status === 401) {
      tell(page.dataset.gone);
      return false;
    }
    if (!answer.ok) {
      throw new Error(String(answer.status));
    }
    renew(new DOMParser().parseFromString(await answer.text(), "text/html"));
    tell("");
  } catch {
    tell(page.dataset.stale);
  }
  return true;
}

function later() {
  window.setTimeout(async () => {
    if (await refresh()) {
      later();
    }
  }, seconds() * 1000);
}

if (page !== null) {
  later();
}
