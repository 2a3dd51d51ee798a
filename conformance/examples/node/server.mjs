// A rollout server of docs/protocol.md, without dependencies: node server.mjs --port 9100 --journal FILE
// Names in brackets are those of the page's sentences. An init is on record before its 202 leaves, a result before it is sent.
import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import fs from 'node:fs'
import http from 'node:http'
import https from 'node:https'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { gunzipSync, inflateSync } from 'node:zlib'
import * as agent from './agent.mjs'

const { port, journal: path } = parseArgs({ options: { port: { type: 'string' }, journal: { type: 'string' } } }).values
const SERVER_KEY = process.env.OSMOSIS_ROLLOUT_SERVER_API_KEY
const [MAX_RUNNING, MAX_BODY_BYTES, MAX_METADATA_BYTES, MAX_REPLY_BYTES] = [200, 8 << 20, 1 << 20, 16 << 20]
const [RETRIES, FIRST_DELAY_MS, LAST_DELAY_MS, DRAIN_MS] = [3, 100, 5_000, 1000 * (process.env.OSMOSIS_ROLLOUT_SERVER_DRAIN_SECONDS ?? 20)]
const [ATTEMPT_MS, CALL_MS, DELIVERY_MS, RUN_MS] = [300_000, 1_200_000, 86_400_000, 1000 * (process.env.OSMOSIS_ROLLOUT_SERVER_REQUEST_TIMEOUT_SECONDS ?? 600)]
const DEFAULTS = { model: 'default', temperature: 1, top_p: 1, max_tokens: 512, logprobs: true }
const WHOLE = ['stop', 'tool_calls', 'function_call', 'length'] // [whole-1, whole-2]
const NO_ID = /^(init|\.\.?)$|[\r\n\v\f\x85\u2028\u2029]/ // [init-11]

class Refusal { constructor(status, detail, code, headers = {}) { Object.assign(this, { status, body: { detail, code }, headers }) } }
class Failure extends Error { constructor(outcome, text) { super(text); this.outcome = outcome } }
const isObject = (value) => typeof value === 'object' && value !== null && !Array.isArray(value)
const hash = (value) => createHash('sha256').update(value).digest(), now = () => Date.now() / 1000
const canonical = (value) => // members in one order, at any depth
  JSON.stringify(value, (_, inner) => (isObject(inner) ? Object.fromEntries(Object.entries(inner).sort()) : inner))

// --- The journal, and what it holds
const byKey = new Map(), byId = new Map() // records; of those with one id the newest
const owed = new Set() // records that run, or whose result is not delivered
const draining = new AbortController(), interrupting = new AbortController(), lastCall = new AbortController()
const journal = recover() // a file of JSON lines, only ever appended to

const note = (event) => { if (journal) fs.writeSync(journal, JSON.stringify(event) + '\n') }
function change(record, changes) { note({ key: record.key, ...changes }); Object.assign(record, changes) }
function remember(record) { byKey.set(record.key, record); byId.set(record.init.rollout_id, record) }
function track(record, work) {
  owed.add(record)
  work.catch((error) => console.error(`It stays on record: ${error.message}`)).finally(() => owed.delete(record))
}
function recover() {
  if (!path) return null
  const text = fs.existsSync(path) ? fs.readFileSync(path, 'utf8') : '', whole = text.slice(0, text.lastIndexOf('\n') + 1) // not the line that a kill has torn
  for (const { accepted, key, ...changes } of whole.split('\n').slice(0, -1).map((line) => JSON.parse(line)))
    accepted ? remember(accepted) : Object.assign(byKey.get(key), changes)
  fs.writeFileSync(path, whole, { mode: 0o600 })
  const restarted = new Failure('interrupted', 'the server was restarted') // it is not run again [way-5]
  for (const record of [...byKey.values()].filter((one) => !one.settled_at))
    track(record, sleep(0).then(() => (record.result ? deliver(record) : finish(record, failed(record, restarted)))))
  return fs.openSync(path, 'a')
}

// --- HTTP in
const routes = [
  ['POST', /^\/v1\/rollout\/init$/, init],
  ['GET', /^\/v1\/rollout\/(?!init$)([^/]+)$/, (request, id) => [200, view(known(request, id))]],
  ['POST', /^\/v1\/rollout\/([^/]+)\/cancel$/, cancel],
  ['GET', /^\/health$/, () => [200, { status: 'healthy', agent_loop: agent.name, active_rollouts: [...owed].filter((record) => !record.result).length, completed_rollouts: byKey.size }]],
  ['GET', /^\/ready$/, () => [draining.signal.aborted ? 503 : 200, { ready: !draining.signal.aborted }]],
]
const server = http.createServer({ requestTimeout: 30_000 }, async (request, response) => {
  let [status, body, headers] = [500, { detail: 'A defect of the server.', code: 'internal_error' }, {}]
  try {
    const fitting = routes.filter(([, pattern]) => pattern.test(request.url.split('?')[0]))
    const [, pattern, handle] = fitting.find(([method]) => method === request.method) ?? []
    if (!handle) throw new Refusal(fitting.length ? 405 : 404, 'There is no such path, or not with this method.') // [err-5]
    ;[status, body] = await handle(request, request.url.split('?')[0].match(pattern)[1])
  } catch (error) {
    error instanceof Refusal ? ({ status, body, headers } = error) : console.error(error.stack)
  }
  response.writeHead(status, { 'Content-Type': 'application/json', ...headers })
  response.end(typeof body === 'string' ? body : JSON.stringify(body))
})

function authorize({ headers }) { // [key-1, key-4..6]
  const sent = (headers.authorization ?? '').replace(/^bearer /i, '')
  if (SERVER_KEY && !timingSafeEqual(hash(Buffer.from(sent, 'latin1')), hash(SERVER_KEY)))
    throw new Refusal(401, 'The key is missing or wrong.', undefined, { 'WWW-Authenticate': 'Bearer' })
}
async function init(request) {
  authorize(request) // before the body is read [key-2]
  if (!/^application\/([\w.-]+\+)?json\s*(;|$)/i.test(request.headers['content-type'] ?? '') || request.headers['content-encoding'])
    throw new Refusal(415, 'The body must be application/json, without a Content-Encoding.', 'not_json')
  const init = validated(await bodyOf(request))
  if (draining.signal.aborted) throw new Refusal(503, 'The server ends.', 'shutting_down', { 'Retry-After': '5' })
  const key = init.idempotency_key ? `key:${init.idempotency_key}` : `id:${init.rollout_id}`
  const { rollout_id, server_url, messages, completion_params, tool_server_url = null, metadata = {}, max_turns = 10, max_tokens_total = 8192 } = init
  const asked = { server_url, messages, completion_params, tool_server_url, metadata, max_turns, max_tokens_total } // [same-5]
  const fingerprint = hash(canonical(asked)).toString('hex')
  const known = byKey.get(key)
  if (known && known.fingerprint !== fingerprint) throw new Refusal(409, 'The key was used for another request.', 'key_reused')
  if (known) return [202, known.reply]
  if (owed.size >= MAX_RUNNING) throw new Refusal(429, 'There is no room.', 'at_capacity', { 'Retry-After': '1' }) // [limit-1]
  const { traceparent, tracestate } = request.headers, trace = { ...(traceparent && { traceparent }), ...(tracestate && { tracestate }) } // [http-13]
  const record = { key, init, fingerprint, trace, uid: randomUUID(), reply: JSON.stringify({ rollout_id, tools: agent.tools }), accepted_at: now() }
  try { note({ accepted: record }) } catch { throw new Refusal(503, 'Nothing can be put on record.', 'journal_unavailable', { 'Retry-After': '5' }) }
  remember(record)
  track(record, sleep(0).then(() => run(record)))
  return [202, record.reply]
}
async function bodyOf(request) {
  const bytes = await bytesOf(request.iterator({ destroyOnReturn: false }), MAX_BODY_BYTES).catch(() => null)
  if (!bytes) throw new Refusal(413, 'The body is too large, or was cut off.', 'body_too_large', { Connection: 'close' }) // [init-17]
  // JSON.parse loses the digits of large numbers: what cannot be passed on as it came is refused [http-6, init-13].
  const isKept = (n) => Number.isSafeInteger(n) || (Number.isFinite(n) && !Number.isInteger(n))
  const reviver = (_, value) => { if (typeof value === 'number' && !isKept(value)) throw new SyntaxError(); return value }
  try { return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes), reviver) } catch {
    throw new Refusal(422, 'The body is no JSON in UTF-8, is nested too deeply, or has a number that is too large.')
  }
}
async function bytesOf(stream, most) {
  const chunks = []
  for await (const chunk of stream) if ((most -= chunks[chunks.push(chunk) - 1].length) < 0) throw new Error('a body without end')
  return Buffer.concat(chunks)
}
function validated(init) {
  if (!isObject(init)) throw new Refusal(422, 'The body is no object.')
  const { completion_params: params, metadata } = init
  const isText = (value, most) => typeof value === 'string' && (value.length <= most || [...value].length <= most) // characters [init-9]
  const isCount = (value, most) => value === undefined || (Number.isInteger(value) && value >= 1 && value <= most)
  const isAbsent = (value) => value === undefined || value === null
  const is = (type) => (value) => typeof value === type, isStop = (value) => [value].flat().every(is('string'))
  const types = { model: is('string'), temperature: is('number'), top_p: is('number'), max_tokens: Number.isInteger, logprobs: is('boolean'), stop: isStop }
  const rules = {
    rollout_id: isText(init.rollout_id, 256) && /\S/.test(init.rollout_id) && !NO_ID.test(init.rollout_id),
    server_url: isText(init.server_url, 2048) && isBaseUrl(init.server_url),
    messages: Array.isArray(init.messages) && init.messages.every(isObject),
    completion_params: isObject(params) && Object.keys(types).every((name) => isAbsent(params[name]) || types[name](params[name])), // [init-8]
    tool_server_url: isAbsent(init.tool_server_url) || isText(init.tool_server_url, Infinity),
    max_turns: isCount(init.max_turns, 100_000),
    max_tokens_total: isCount(init.max_tokens_total, 1_000_000_000),
    metadata: metadata === undefined || (isObject(metadata) && Buffer.byteLength(JSON.stringify(metadata)) <= MAX_METADATA_BYTES),
    api_key: isAbsent(init.api_key) || (isText(init.api_key, 4096) && /^([!-~]([ -~]*[!-~])?)?$/.test(init.api_key)),
    idempotency_key: isAbsent(init.idempotency_key) || isText(init.idempotency_key, 256),
  }
  const wrong = Object.keys(rules).filter((name) => !rules[name]) // named, but nothing that was sent is repeated [err-2, err-3]
  if (wrong.length) throw new Refusal(422, wrong.map((name) => ({ type: 'value_error', loc: ['body', name], msg: 'missing or wrong' })))
  return init
}
function isBaseUrl(text) { // [init-4, init-5]
  if (!/^https?:\/\/[^/\\\s]/i.test(text) || /[\s?#@\p{C}]/u.test(text)) return false
  try { return new URL(text).port !== '0' } catch { return false }
}
function known(request, id) {
  authorize(request)
  try { id = decodeURIComponent(id) } catch { /* it encodes nothing */ }
  if (byId.has(id)) return byId.get(id)
  throw new Refusal(404, 'No such rollout is known.', 'unknown_rollout')
}
function view({ init, result, accepted_at, finished_at, settled_at, state, attempts: delivery_attempts, last_error }) {
  const short = result && { status: result.status, finish_reason: result.finish_reason, outcome: result.extra_fields.outcome,
    reward: result.reward ?? null, error_message: result.error_message ?? null, num_messages: result.final_messages.length }
  return { rollout_id: init.rollout_id, state: state ?? (result ? 'finished' : 'running'), accepted_at, finished_at, settled_at, delivery_attempts, last_error, result: short }
}
function cancel(request, id) { // [state-3..5]
  const record = known(request, id)
  if (record.result || !record.stop) throw new Refusal(409, 'It does not run.', 'not_running')
  record.stop(new Failure('cancelled', 'cancelled on request'))
  return [202, { rollout_id: record.init.rollout_id, state: 'cancelling' }]
}

// --- HTTP out
const clients = { 'http:': [http, new http.Agent({ keepAlive: true })], 'https:': [https, new https.Agent({ keepAlive: true })] }
// An answer that is whole; its status is 0, and its text the reason, where there is none [http-10..12].
function post({ init, trace }, path, body, key, signals = []) {
  const url = new URL(init.server_url.replace(/\/+$/, '') + path), [client, pool] = clients[url.protocol] // [init-6]
  const headers = { ...trace, 'Content-Type': 'application/json', 'User-Agent': 'node-example/1', 'Idempotency-Key': key }
  if (init.api_key) headers.Authorization = `Bearer ${init.api_key}` // [key-7]
  return new Promise((resolve) => {
    const fail = (error) => { request.destroy(); resolve({ status: 0, headers: {}, code: error.code, text: error.message }) }
    const signal = AbortSignal.any([AbortSignal.timeout(ATTEMPT_MS), ...signals])
    const request = client.request(url, { method: 'POST', headers, agent: pool, signal }, (response) => read(response).then(resolve, fail))
    request.on('error', fail).end(body)
  })
}
async function read(response) {
  const bytes = await bytesOf(response, MAX_REPLY_BYTES)
  if (!response.complete) throw new Error('a reply that is cut off')
  const unpack = { gzip: gunzipSync, deflate: inflateSync }[response.headers['content-encoding']] ?? ((same) => same) // [http-9]
  return { status: response.statusCode, headers: response.headers, text: unpack(bytes, { maxOutputLength: MAX_REPLY_BYTES }).toString() }
}
function delayMs(round, answer, leftMs) { // [retry-10, retry-11]
  const told = answer.headers['retry-after'] ?? ''
  const toldMs = /^\d+$/.test(told) ? told * 1000 : Math.max(0, Date.parse(told) - Date.now()) || 0
  const ownMs = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(round, 10)) * (0.5 + Math.random() / 2)
  return toldMs > leftMs ? ownMs : /^0+$/.test(told) ? 0 : Math.max(toldMs, ownMs)
}
const isPage = ({ status, text }) => /^\s*<(!doctype |)html/i.test(text) && ![410, 413].includes(status) // nobody is there, but for these two
function absence({ status, text }) { // who says so: the trainer 'itself', a framework without the 'path', 'nobody' [absent-1..3]
  if (status === 410) return 'itself'
  if (status !== 404 && status !== 405) return ''
  try {
    const body = JSON.parse(text)
    if (!isObject(body) || !Object.keys(body).length || text.length > 16_384) return 'nobody'
    const isPath = /"(404 )?((page|route) )?not found\.?"|"no route matched with those values\.?"/i.test(text) && !/rollout/i.test(text.replace(/\/[^\s"]*/g, ''))
    return status === 405 || isPath ? 'path' : 'itself'
  } catch { return 'nobody' }
}

// --- A rollout
async function chat(record, { messages, signal, keys, clock }) { // [chat-1..8, retry-1..11, whole-1..8]
  const { messages: _, rollout_id: __, tools: ___, self: ____, ...params } = record.init.completion_params // [init-16]
  const asked = Object.fromEntries(Object.entries(params).filter(([, value]) => value !== null))
  const body = JSON.stringify({ ...DEFAULTS, ...asked, rollout_id: record.init.rollout_id, messages })
  let key = keys(), deadline = Date.now() + CALL_MS
  for (let round = 0, tries = 0; ; round++) {
    const began = performance.now()
    const answer = await post(record, '/v1/chat/completions', body, key, [signal])
    signal.throwIfAborted()
    const { status, headers, text } = answer
    let problem = `The trainer answered ${[status || 'nothing', headers.location, text.slice(0, 300)].join(' ')}`
    let isPause = answer.code === 'ECONNREFUSED' || [429, 502, 503, 504].includes(status) || absence(answer) === 'nobody'
    let isFinal = !isPause && status > 0 && status < 500 && ![408, 425].includes(status) && absence(answer) !== 'path' && !isPage(answer) // [retry-16]
    if (status === 200) {
      const { choice, usage } = completion(text)
      const reason = Object.hasOwn(choice, 'finish_reason') ? choice.finish_reason : 'stop'
      if (WHOLE.includes(reason)) return clock.run(), { message: choice.message, usage, reason, ms: performance.now() - began }
      problem = `A reply that is not whole: finish_reason ${JSON.stringify(reason)}`
      ;[isPause, isFinal] = [reason === 'abort', reason === 'content_filter']
      key = keys() // what is asked now is another call
    }
    if (isFinal || Date.now() > deadline || (!isPause && tries++ >= RETRIES)) throw new Failure('llm_error', problem)
    if (isPause) clock.stop(began)
    await sleep(delayMs(round, answer, deadline - Date.now()), null, { signal }).catch(() => signal.throwIfAborted())
  }
}
function completion(text) {
  let choice, usage
  try { ({ choices: [choice], usage } = JSON.parse(text)) } catch { /* no message then */ }
  const calls = isObject(choice?.message) ? (choice.message.tool_calls ?? []) : null
  if (!Array.isArray(calls) || !calls.every((call) => isObject(call?.function))) throw new Failure('llm_error', 'No message.') // [retry-3]
  return { choice, usage: usage ?? {} }
}
function clockOf(onEnd) { // it stands still while the trainer pauses [limit-2, retry-13]
  let left = RUN_MS, since, timer
  const run = () => { if (!timer) [since, timer] = [performance.now(), setTimeout(onEnd, left)] }
  const stop = (at) => { if (timer) left -= at - since; timer = clearTimeout(timer) }
  run()
  return { run, stop }
}
async function run(record) {
  const began = performance.now(), stopping = new AbortController(), messages = [...record.init.messages]
  let calls = 0
  record.stop = (failure) => stopping.abort(failure)
  const clock = clockOf(() => record.stop(new Failure('timeout', 'the run took too long')))
  const own = { messages, clock, keys: () => `${record.uid}-${calls++}`, signal: AbortSignal.any([stopping.signal, interrupting.signal]) }
  const metrics = { num_llm_calls: 0, num_tool_calls: 0, prompt_tokens: 0, response_tokens: 0, max_context_tokens: 0, llm_latency_ms: 0, tool_latency_ms: 0 }
  const ask = async () => {
    const { message, usage, reason, ms } = await chat(record, own)
    const [prompt, response] = [usage.prompt_tokens, usage.completion_tokens].map((count) => (count > 0 ? count : 0))
    messages.push(message) // as it came [chat-9, chat-14]
    metrics.max_context_tokens = Math.max(metrics.max_context_tokens, prompt)
    const more = { num_llm_calls: 1, prompt_tokens: prompt, response_tokens: response, llm_latency_ms: ms }
    for (const name in more) metrics[name] += more[name]
    return { message, reason, tokens: prompt + response }
  }
  const result = await agent.run(record.init, messages, metrics, ask).then((finish_reason) => {
    own.signal.throwIfAborted()
    return { ...ending(record, 'COMPLETED', messages, finish_reason, 'success'), reward: agent.rewardOf(record.init, messages) }
  }).catch((error) => failed(record, error, messages)).finally(() => clock.stop(0)) // whatever it was, there is a result [way-1]
  await finish(record, { ...result, metrics: { ...metrics, total_latency_ms: performance.now() - began } })
}
const ending = ({ init: { rollout_id } }, status, final_messages, finish_reason, outcome) =>
  ({ rollout_id, status, final_messages, finish_reason, extra_fields: { outcome } })
function failed(record, error, messages = record.init.messages) { // never with a reward [result-6]
  const outcome = error.outcome ?? 'agent_error', reason = outcome === 'cancelled' ? outcome : 'error'
  const text = `${error.name}: ${error.message}`.replaceAll(record.init.api_key || /$^/g, '(key)') // [key-10]
  return { ...ending(record, 'ERROR', messages, reason, outcome), error_message: text.slice(0, 2000) }
}
function finish(record, result) { change(record, { result, finished_at: now() }); return deliver(record) }
async function deliver(record) { // [deliver-1..8]
  const key = hash(record.uid).toString('hex').slice(0, 32), deadline = Date.now() + DELIVERY_MS
  for (let round = 0; ; round++) {
    const answer = await post(record, '/v1/rollout/completed', JSON.stringify(record.result), key)
    const { status, headers, text } = answer, { final_messages, extra_fields } = record.result, isSuccess = status >= 200 && status < 300
    const isNobody = isPage(answer) && (!isSuccess || (/html/.test(headers['content-type']) && !headers['content-encoding'])), isDelivered = isSuccess && !isNobody
    change(record, { attempts: (record.attempts ?? 0) + 1, last_error: isDelivered ? null : `${status || text}` }) // [state-14]
    if ([400, 413, 422].includes(status) && !isNobody && final_messages.length && !extra_fields.messages_refused) { // on record before it is sent [deliver-6]
      change(record, { result: { ...record.result, final_messages: [], extra_fields: { ...extra_fields, messages_refused: true } } })
      continue
    }
    const isAgain = status === 0 || isNobody || [3, 5].includes(Math.floor(status / 100)) || [408, 425, 429].includes(status) || ['path', 'nobody'].includes(absence(answer))
    if (isDelivered || !isAgain || Date.now() > deadline) return change(record, { state: isDelivered ? 'delivered' : 'undeliverable', settled_at: now() })
    if (lastCall.signal.aborted) return // it stays on record [drain-6]
    await sleep(delayMs(round, answer, deadline - Date.now()), null, { signal: lastCall.signal }).catch(() => {})
  }
}

// --- Start and end
server.listen(Number(port ?? 9100), '127.0.0.1')
process.once('SIGTERM', async () => { // [drain-1..4]
  draining.abort()
  const until = async (ms, isOver) => { for (const end = Date.now() + ms; !isOver() && Date.now() < end; ) await sleep(50) }
  await until(DRAIN_MS, () => [...owed].every((record) => record.result))
  interrupting.abort(new Failure('interrupted', 'the server ends')) // [drain-5]
  lastCall.abort() // each result once more [drain-7]
  await until(2_000, () => !owed.size)
  process.exit(0) // what is owed still is on record
})
