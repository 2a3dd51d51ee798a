// The agent of server.mjs: a calculator. This is the part to replace.

export const name = 'calculator'
const operations = { add: (a, b) => a + b, multiply: (a, b) => a * b }
const parameters = { type: 'object', properties: { a: { type: 'number' }, b: { type: 'number' } }, required: ['a', 'b'] }
export const tools = Object.keys(operations).map((name) => {
  return { type: 'function', function: { name, description: `Two numbers: ${name} them.`, parameters, strict: false } }
})

// Gives the finish reason; `ask` puts the model's next message behind `messages` and gives it.
export async function run({ max_turns = 10, max_tokens_total = 8192 }, messages, metrics, ask) {
  for (let turn = 0; turn < max_turns; turn++) { // [init-20]
    const { message, reason, tokens } = await ask()
    if (!message.tool_calls?.length) return reason
    for (const { id, function: called } of message.tool_calls) { // one each, in their order [chat-15, chat-16]
      const began = performance.now()
      messages.push({ role: 'tool', tool_call_id: id, content: answerTo(called) })
      metrics.tool_latency_ms += performance.now() - began
      metrics.num_tool_calls += 1
    }
    if (tokens >= max_tokens_total) return 'max_tokens' // [init-21]
  }
  return 'max_turns'
}

function answerTo({ name, arguments: text }) { // also what cannot be called [chat-18]
  if (!Object.hasOwn(operations, name)) return `Error: there is no tool ${name}`
  try {
    const { a, b } = JSON.parse(text)
    return typeof a === 'number' && typeof b === 'number' ? String(operations[name](a, b)) : 'Error: a and b must be numbers'
  } catch { return 'Error: the arguments are no JSON object' }
}

// Undefined where there is nothing to compare with.
export function rewardOf({ metadata }, messages) {
  const [, said] = String(messages.at(-1)?.content ?? '').match(/####\s*(\S+)\s*$/) ?? []
  return metadata?.ground_truth === undefined ? undefined : Number(said === String(metadata.ground_truth))
}
