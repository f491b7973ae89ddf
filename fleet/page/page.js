"use strict";
(() => {
  const SHOWN = 100;
  const FIELDS = ["name", "groups", "status", "tier", "summary", "kernel", "system", "versions", "reasons", "findings",
    "changes", "proof", "fix"];
  const at = (id) => document.getElementById(id);
  const { texts, nodes, drift: drifts } = JSON.parse(at("data").textContent);
  const drift = new Map(Object.entries(drifts)); // a node may be called constructor
  const text = (value) => (Array.isArray(value) ? value.map(text) : texts[value]);

  // A node in full: only for those that are looked at.
  const unpacked = (packed) => Object.fromEntries(FIELDS.map((field, i) =>
    [field, field === "name" || field === "proof" ? packed[i] : text(packed[i])]));
  const byName = new Map(nodes.map((packed) => [packed[0], packed]));

  const element = (tag, content, attributes = {}) => {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    for (const each of [content].flat()) if (each !== undefined) made.append(each);
    return made;
  };
  const link = (name) => element("a", name, { href: `#node=${encodeURIComponent(name)}` });

  // --- the list ---------------------------------------------------------------------------------------------------

  const inputs = { search: at("search"), group: at("group"), tier: at("tier"), status: at("status"), drifted: at("drifted") };
  const choices = (field, select) => {
    const found = new Set(nodes.flatMap((packed) => packed[field]));
    for (const value of [...found].map(text).sort()) select.append(element("option", value, { value }));
  };
  choices(1, inputs.group);
  choices(2, inputs.status);
  choices(3, inputs.tier);

  const searched = new Map();
  const haystack = (packed) => {
    if (!searched.has(packed)) searched.set(packed, Object.values(unpacked(packed)).flat(Infinity).join("\n").toLowerCase());
    return searched.get(packed);
  };
  let limit = SHOWN;
  const matching = () => {
    const words = inputs.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const { group, tier, status, drifted } = inputs;
    return nodes.filter((packed) =>
      (!status.value || text(packed[2]) === status.value) &&
      (!tier.value || text(packed[3]) === tier.value) &&
      (!group.value || text(packed[1]).includes(group.value)) &&
      (!drifted.checked || drift.has(packed[0])) &&
      words.every((word) => haystack(packed).includes(word)));
  };
  const installed = (node, component) => (node.versions.find((each) => each[0] === component) ?? [])[1] || "-";
  const show = () => {
    const found = matching();
    at("list").tBodies[0].replaceChildren(...found.slice(0, limit).map((packed) => {
      const node = unpacked(packed);
      return element("tr", [
        element("th", link(node.name), { scope: "row" }), element("td", node.status), element("td", node.tier),
        element("td", node.groups.join(", ")), element("td", installed(node, "containerd")),
        element("td", installed(node, "runc")), element("td", node.kernel || "-")]);
    }));
    const shown = Math.min(limit, found.length);
    at("count").textContent = `${found.length} of ${nodes.length} nodes` + (shown < found.length ? `, the first ${shown} shown` : "");
    at("more").hidden = shown === found.length;
  };
  const again = () => { limit = SHOWN; show(); };
  for (const event of ["input", "change"]) at("filters").addEventListener(event, again);
  at("filters").addEventListener("submit", (event) => event.preventDefault());
  at("filters").addEventListener("reset", () => setTimeout(again));
  at("more").addEventListener("click", () => { limit += SHOWN * 5; show(); });

  // --- one node, by its own address --------------------------------------------------------------------------------

  const list = (title, items) => (items.length ? [element("h3", title), element("ul", items.map((each) => element("li", each)))] : []);
  const open = () => {
    const asked = /^#node=(.*)$/.exec(location.hash);
    if (!asked) {
      if (at("node").open) at("node").close();
      return;
    }
    let name = asked[1];
    try { name = decodeURIComponent(name); } catch { /* as it is */ }
    const packed = byName.get(name);
    at("node-name").textContent = packed ? name : `There is no node ${name} in this run`;
    const otherwise = list("Otherwise than before", (drift.get(name) ?? []).map(text));
    const parts = packed ? [] : otherwise;
    if (packed) {
      const node = unpacked(packed);
      const facts = [["status", node.status], ["tier", node.summary ? `${node.tier}: ${node.summary}` : node.tier],
        ["groups", node.groups.join(", ")], ["system", [node.system, node.kernel].filter(Boolean).join(", ")],
        ...node.versions.map(([component, there, wanted]) =>
          [component, wanted && wanted !== there ? `${there || "none"}, wanted ${wanted}` : there || "none"])];
      parts.push(element("dl", facts.filter(([, value]) => value).flatMap(([key, value]) => [element("dt", key), element("dd", value)])));
      parts.push(...list("Why", node.reasons), ...(node.fix ? [element("p", [element("strong", "Fix: "), node.fix])] : []),
        ...otherwise,
        ...list("Findings", node.findings.map(([what, message, source]) => `${what}: ${message}${source ? ` (${source})` : ""}`)),
        ...list("Changes", node.changes), ...list("Proof", node.proof));
    }
    at("node-body").replaceChildren(...parts);
    if (!at("node").open) at("node").showModal();
    at("node").scrollTop = 0;
  };
  at("node").addEventListener("close", () => {
    if (location.hash.startsWith("#node=")) history.pushState(null, "", location.pathname + location.search);
  });
  addEventListener("hashchange", open);
  show();
  open();
})();
