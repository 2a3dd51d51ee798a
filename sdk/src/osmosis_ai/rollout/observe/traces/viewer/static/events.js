// The events of a trace as the page reads them. All in a file is foreign: here, and nowhere else, each field becomes of
// the kind that its readers expect (a text is made of whatever is none), or is absent. Fields not named here are any.
const Events = (() => {
  const text = (value) => typeof value === "string" ? value : value === null || value === undefined ? undefined : Text.json(value);
  const number = (value) => typeof value === "number" ? value : undefined;
  const integer = (value) => Number.isSafeInteger(value) ? value : undefined;
  const list = (of) => (value) => Array.isArray(value) ? value.map(of) : undefined;
  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const object = (fields = {}) => (value) => {
    if (!isObject(value)) return undefined;
    const made = { ...value };
    for (const [name, kind] of Object.entries(fields)) if (name in value) made[name] = kind(value[name]);
    return made;
  };

  const part = (value) => object({ text, image_url: (url) => object({ url: text })(url) ?? text(url), input_audio: object({ data: text, format: text }) })(value) ?? value;
  const call = (value) => object({ id: text, function: object({ name: text }) })(value) ?? {};
  const said = object({
    role: text, name: text, tool_call_id: text, reasoning_content: text, tool_calls: list(call),
    content: (value) => Array.isArray(value) ? value.map(part) : value,
  });
  const messages = list((value) => said(value) ?? { content: value });
  const event = object({
    time: number, turn: integer, name: text, outcome: text, status: text, verdict: text, attempt: text, finish_reason: text, error: text, error_message: text, problem: text, tool_call_id: text,
    latency_ms: number, queue_ms: number, pause_ms: number, ago_ms: number, at: integer,
    request: object({ messages, completion_params: object() }), tools: list((value) => object({ function: object({ name: text, description: text }) })(value) ?? {}),
    appended: messages, reply: said, usage: object({ prompt_tokens: number, completion_tokens: number }), weight_versions: list(text), tool_calls: list(call),
    final_messages: messages, extra_fields: object(),
  });

  // What each was made of, as it stands in the trace.
  const givens = new WeakMap();
  const read = (all) => all.map((given) => { const made = event(given); givens.set(made, given); return made; });

  return { read, given: (made) => givens.get(made) };
})();
