"""A pipeline's report as a page that can be opened without anything else."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, Template

from overnight.templates.report import COUNTS, PipelineReport

_PAGE = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title>
<style>
  body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c2733; }
  table { border-collapse: collapse; margin: 1rem 0; }
  th, td { padding: .3rem .9rem; border-bottom: 1px solid #d5dce3; text-align: left; }
  td.number { text-align: right; font-variant-numeric: tabular-nums; }
  .bad { color: #a3241c; font-weight: 600; }
</style>
<h1>{{ title }}</h1>
{% if report.refused %}
<p class="bad">Nothing was submitted. {{ report.refused }}</p>
{% endif %}
<table>
  {% if report.index %}
  <tr><th>index<td>{{ report.index }}
  {% endif %}
  {% for name in counts %}
  <tr><th>{{ name }}<td class="number{{ " bad" if name in ("rejected", "missing") and report[name] }}">{{
    "{:,}".format(report[name]) }}
  {% endfor %}
  {% if report.repeated %}
  <tr><th>reused, from another document<td class="number">{{ "{:,}".format(report.repeated) }}
  {% endif %}
  {% if report.estimate is not none %}
  <tr><th>cost, estimated<td class="number">{{ report.estimate.price }}
  {% endif %}
  {% if report.cost is not none %}
  <tr><th>cost<td class="number">{{ report.cost }}
  {% endif %}
  {% if report.saved is not none %}
  <tr><th>saved<td class="number">{{ report.saved }}
  {% endif %}
  {% if report.mirror %}
  <tr><th>deleted<td class="number{{ " bad" if report.mirror.refusal }}">{{ "{:,}".format(report.deleted) }}
  {% endif %}
  <tr><th>bytes read<td class="number">{{ "{:,}".format(report.bytes) }}
  <tr><th>seconds loading<td class="number">{{ "%.1f" % report.seconds }}
  {% for model in report.models %}
  <tr><th>model<td>{{ model }}
  {% endfor %}
  {% for name, count in report.usage.items() %}
  <tr><th>usage, {{ name }}<td class="number">{{ "{:,}".format(count) }}
  {% endfor %}
</table>
{% if report.reasons %}
<h2>Why not</h2>
<table>
  {% for reason, count in report.reasons | dictsort(by="value", reverse=true) %}
  <tr><td>{{ reason }}<td class="number">{{ "{:,}".format(count) }}
  {% endfor %}
</table>
{% endif %}
{% if report.mirror and report.mirror.refusal %}
<p class="bad">{{ report.mirror.refusal }}</p>
{% endif %}
{% if report.dead_letter_uris %}
<p>Each document is named, with its reason, in:</p>
<ul>
  {% for uri in report.dead_letter_uris %}
  <li><code>{{ uri }}</code>
  {% endfor %}
</ul>
{% endif %}
<h2>Parts</h2>
<table>
  <tr><th>part<th>submitted<th>reused<th>indexed<th>unchanged<th>dropped<th>rejected<th>missing<th>
  {% for part in report.parts %}
  <tr><td>{{ loop.index0 }}
    <td class="number">{{ "{:,}".format(part.documents - part.reused) }}
    <td class="number">{{ "{:,}".format(part.reused) }}
    {% for name in ("indexed", "unchanged", "dropped", "rejected", "missing") %}
    <td class="number">{{ "{:,}".format(part.load[name]) if part.load }}
    {% endfor %}
    <td class="bad">{{ "" if part.accepted else "failed" if part.load else "never loaded" }}
  {% endfor %}
</table>
{% if report.jobs %}
<h2>Jobs</h2>
<table>
  <tr><th>service<th>job<th>items<th>failed<th>seconds<th>
  {% for job in report.jobs %}
  <tr><td>{{ job.service }}<td><code>{{ job.id }}</code>
    <td class="number">{{ "{:,}".format(job.items) if job.items is not none }}
    <td class="number">{{ "{:,}".format(job.failed) if job.failed is not none }}
    <td class="number">{{ "{:,.0f}".format(job.seconds) if job.seconds is not none }}
    <td class="{{ "bad" if job.error }}">{{ job.error or job.state or "not over" }}
    {% if job.wait %}<br>{{ job.wait }}{% endif %}

    {% for uri in job.error_uris %}<br><code>{{ uri }}</code>{% endfor %}

  {% endfor %}
</table>
{% endif %}
"""


def render(report: PipelineReport, title: str) -> str:
    """
    Return the page, one HTML file with nothing beside it.

    :param title: What the page is about; the DAG and its run.
    """
    return _compile().render(report=report, title=title, counts=COUNTS)


@cache
def _compile() -> Template:
    # A DAG that is parsed renders no report.
    return Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(_PAGE)
