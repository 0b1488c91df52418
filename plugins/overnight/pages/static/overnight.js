"use strict";

// Airflow shows this page in a frame of its own origin, and its theme is a class of the document around the frame.
const outer = window.parent.document;
const showTheme = () => document.documentElement.classList.toggle("dark", outer.documentElement.classList.contains("dark"));
showTheme();
new MutationObserver(showTheme).observe(outer.documentElement, { attributes: true, attributeFilter: ["class"] });

// A frame with a sandbox may not navigate the window around it; a link of the window's own document may.
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[data-leave]");
  if (link === null || window.parent === window) return;
  event.preventDefault();
  const substitute = outer.createElement("a");
  substitute.href = link.href;
  if (new URL(link.href).origin !== location.origin) substitute.target = "_blank";
  substitute.rel = "noopener";
  substitute.click();
});

const POLL_SECONDS = 10;
const AT_ONCE = 25;
const say = (text) => { document.getElementById("said").textContent = text; };
const readJob = (row) => JSON.parse(row.dataset.job);

async function read(response) {
  const text = await response.text();
  let answer = {};
  try { answer = JSON.parse(text); } catch { /* an error page of a proxy */ }
  if (response.ok) return answer;
  const detail = typeof answer.detail === "string" ? answer.detail : response.statusText;
  throw new Error(response.status === 403 ? "You may not do that: " + detail : detail);
}

async function refresh(row) {
  try {
    const found = await read(await fetch("./status?" + new URLSearchParams(readJob(row))));
    const state = row.querySelector("[data-state]");
    state.textContent = found.state;
    state.className = "state " + found.state;
    row.querySelector("[data-text]").textContent = found.text;
    const bar = row.querySelector("[data-share]");
    bar.hidden = found.share === null;
    if (found.share !== null) bar.value = found.share;
    if (found.is_over) {
      row.removeAttribute("data-live");
      row.querySelector("button[data-cancel]")?.remove();
    }
  } catch (error) {
    row.querySelector("[data-text]").textContent = error.message;
  }
}

async function refreshAll() {
  if (!document.hidden) {
    const rows = [...document.querySelectorAll("tr[data-live]")].slice(0, AT_ONCE);
    await Promise.all(rows.map(refresh));
  }
  setTimeout(refreshAll, POLL_SECONDS * 1000);
}
refreshAll();

const send = (method, address, body) =>
  fetch(address, { method, headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });

// A task that waits for the job is marked failed first, or a retry would submit the job again. Its trigger cancels the job,
// but not when it had not started yet; to cancel twice does no harm.
async function requestCancellation(job, kind) {
  if (kind !== "job") {
    const parts = ["dags", job.dag_id, "dagRuns", job.run_id, "taskInstances", job.task_id];
    if (job.map_index >= 0) parts.push(job.map_index);
    const address = "../api/v2/" + parts.map(encodeURIComponent).join("/");
    await read(await send("PATCH", address, { new_state: "failed" }));
    if (kind === "task") return { text: "The task is marked failed; no job was submitted." };
  }
  return read(await send("POST", "./cancel", job));
}

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button[data-cancel]");
  if (button === null) return;
  // The frame's sandbox has no dialogs, so the button itself asks.
  if (button.dataset.sure === undefined) {
    button.dataset.sure = "";
    button.textContent = "Cancel the job?";
    return;
  }
  const row = button.closest("tr");
  button.disabled = true;
  try {
    const answer = await requestCancellation(readJob(row), button.dataset.cancel);
    say(answer.text);
    setTimeout(() => location.reload(), 3000);
  } catch (error) {
    say(error.message);
    button.disabled = false;
  }
});
