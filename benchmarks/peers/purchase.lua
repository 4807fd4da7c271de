-- The debit of a purchase with its duplicate check, as Redis does it best here: one script, run whole or not at all.
--
-- In its favour: an identity and its transaction are one key, what is looked up in a card is one HMGET, and there is no MAC.
--
-- KEYS: identity (transaction:TERMINAL:DATE:STAN), terminal:ID, card:NUMBER, merchant:ID
-- ARGV: the merchant's ID, the date (YYYYMMDD), the amount in fen
-- Answers "RESPONSE POSITION BALANCE".

local content = KEYS[3] .. ' ' .. ARGV[3]
local known = redis.call('GET', KEYS[1])
if known then
    local answer, of = known:match('^(%d+ %d+ %d+) (.*)$')
    return of == content and answer or '94 0 0'
end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return '58 0 0'
end
local amount = tonumber(ARGV[3])
local card = redis.call('HMGET', KEYS[3], 'status', 'expires', 'cash')
local balance = tonumber(card[3])
local response = '00'
if not (amount >= 1 and amount <= 5000000) then
    response = '13'
elseif not card[1] then
    response = '14'
elseif card[1] == 'lost' then
    response = '41'
elseif card[1] ~= 'active' then
    response = '62'
elseif card[2] < ARGV[2] then
    response = '54'
elseif balance < amount then
    response = '51'
else
    balance = redis.call('HINCRBY', KEYS[3], 'cash', -amount)
    redis.call('INCRBY', KEYS[4], amount)
end
local position = redis.call('INCR', 'position')
local answer = string.format('%s %.0f %.0f', response, position, balance or 0)
redis.call('SET', KEYS[1], answer .. ' ' .. content)
return answer
