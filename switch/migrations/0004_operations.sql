-- Every operation of the protocol, in tables that a person can ask by card, merchant, terminal and day.

-- What few transactions have. NULL where there is nothing to say, so a purchase is as small as it was; the rows that are there already are not
-- written again for it.
ALTER TABLE transaction
    -- How an operation that happened offline would have been answered if the switch had been asked before, where that is not 00.
    ADD COLUMN flag text COLLATE "C",
    -- What it was about beside money: `bill_payment`: the payee's kind and the bill; `borrow`, `return`: the item; `enter`, `leave`, `attendance`,
    -- `verify`: the zone of the door; `event`: kind, place, value; `reversal`: the operation that it undid.
    ADD COLUMN detail text COLLATE "C",
    -- What a holder paid above the amount, or got back of that; below zero a discount. It went to the account fees, or came from grants.
    ADD COLUMN surcharge bigint,
    -- Whether the terminal told of it when it had happened already.
    ADD COLUMN is_advice boolean NOT NULL DEFAULT false,
    -- A hold that lapses is the switch's own doing: no terminal has sent a message.
    ALTER COLUMN stan DROP NOT NULL,
    ALTER COLUMN local_time DROP NOT NULL;

-- What became of a transaction, and where an item, a bill, a zone or a room is told of. Purchases are in neither.
CREATE INDEX transaction_original ON transaction (original) WHERE original IS NOT NULL;
CREATE INDEX transaction_detail ON transaction (operation, detail) WHERE detail IS NOT NULL;

ALTER TABLE card ADD COLUMN has_pin boolean NOT NULL DEFAULT false;
ALTER TABLE terminal
    ADD COLUMN open_batch integer NOT NULL DEFAULT 1,
    ADD COLUMN standing text COLLATE "C" NOT NULL DEFAULT 'active';

-- What a person has to look at: what terminals told of and was not posted, and totals of batches that differ.
CREATE TABLE exception (
    position bigint PRIMARY KEY,
    business_date date NOT NULL,
    at timestamptz NOT NULL,
    kind text COLLATE "C" NOT NULL,
    operation text COLLATE "C" NOT NULL,
    response text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    card_number text COLLATE "C",
    stan integer NOT NULL,
    local_time timestamp NOT NULL,
    amount bigint,
    detail text NOT NULL
);
CREATE INDEX exception_business_date ON exception (business_date);
CREATE INDEX exception_card ON exception (card_number);

-- The holds that are open. One that is completed, reversed or lapses is taken away; it stays in `transaction`.
CREATE TABLE hold (
    position bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    merchant_id text COLLATE "C" NOT NULL,
    card_number text COLLATE "C" NOT NULL,
    holder_id text COLLATE "C" NOT NULL,
    amount bigint NOT NULL
);
CREATE INDEX hold_holder ON hold (holder_id);

-- The items that are on loan. One that is brought back is taken away; it stays in `transaction`.
CREATE TABLE loan (
    item text COLLATE "C" PRIMARY KEY,
    position bigint NOT NULL,
    business_date date NOT NULL,
    card_number text COLLATE "C" NOT NULL,
    holder_id text COLLATE "C" NOT NULL
);
CREATE INDEX loan_holder ON loan (holder_id);

-- Each batch of a terminal to which anything was counted, or which it closed. `closed_position` is its last word on it.
CREATE TABLE batch (
    terminal_id text COLLATE "C" NOT NULL,
    number integer NOT NULL,
    status text COLLATE "C" NOT NULL,
    closed_position bigint,
    closed_at timestamptz,
    credit_count bigint NOT NULL,
    credit_amount bigint NOT NULL,
    credit_reversal_count bigint NOT NULL,
    credit_reversal_amount bigint NOT NULL,
    debit_count bigint NOT NULL,
    debit_amount bigint NOT NULL,
    debit_reversal_count bigint NOT NULL,
    debit_reversal_amount bigint NOT NULL,
    PRIMARY KEY (terminal_id, number)
) WITH (fillfactor = 60);

-- The rules in force, as the policy file has them, and the record since which they are.
CREATE TABLE rule (
    number integer PRIMARY KEY,
    position bigint NOT NULL,
    rule text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    category text COLLATE "C" NOT NULL,
    zone text COLLATE "C" NOT NULL,
    days text COLLATE "C" NOT NULL,
    begins text COLLATE "C" NOT NULL,
    ends text COLLATE "C" NOT NULL,
    value text COLLATE "C" NOT NULL
);

-- What cardholders paid at merchants, purse by purse (`amount`), and what the merchants got of it (`earned`); what was given back is negative. With a
-- surcharge the one is more than the other, with a discount less: the difference is with the campus's own accounts 2, fees, and 3, grants.
-- Loads and bills are none of it: their other side is the cash desk or a payee.
CREATE OR REPLACE VIEW spending AS
SELECT
    decided.business_date,
    decided.position,
    decided.terminal_id,
    decided.merchant_id,
    decided.card_number,
    CASE
        WHEN posting.debit_account IN (cash_account, subsidy_account) THEN posting.amount
        WHEN posting.credit_account IN (cash_account, subsidy_account) THEN -posting.amount
        ELSE 0
    END AS amount,
    CASE merchant.account WHEN posting.credit_account THEN posting.amount WHEN posting.debit_account THEN -posting.amount ELSE 0 END AS earned
FROM transaction AS decided
JOIN cardholder USING (holder_id)
JOIN merchant USING (merchant_id)
JOIN posting USING (business_date, position)
WHERE merchant.account IN (posting.debit_account, posting.credit_account)
    OR posting.debit_account IN (cash_account, subsidy_account) AND posting.credit_account IN (2, 3)
    OR posting.credit_account IN (cash_account, subsidy_account) AND posting.debit_account IN (2, 3);

-- What cards were shown for beside money. The zone is that of the door at that time; of a library's terminal the one that it stands in now.
-- Two parts, so that the index on `detail` finds a zone or an item.
CREATE VIEW identity_event AS
SELECT
    position,
    business_date,
    at,
    local_time,
    operation,
    response,
    flag,
    is_advice,
    terminal_id,
    detail AS zone,
    merchant_id,
    card_number,
    holder_id,
    NULL::text COLLATE "C" AS item
FROM transaction
WHERE operation IN ('enter', 'leave', 'attendance', 'verify')
UNION ALL
SELECT
    position,
    business_date,
    at,
    local_time,
    operation,
    response,
    flag,
    is_advice,
    terminal_id,
    nullif(terminal.zone, ''),
    shown.merchant_id,
    card_number,
    holder_id,
    detail
FROM transaction AS shown
LEFT JOIN terminal USING (terminal_id)
WHERE operation IN ('borrow', 'return');

-- Bills. `undone` is the reversal, where there was one.
CREATE VIEW bill_payment AS
SELECT
    paid.position,
    paid.business_date,
    paid.at,
    paid.local_time,
    paid.response,
    paid.terminal_id,
    paid.merchant_id,
    paid.card_number,
    paid.holder_id,
    paid.detail,
    split_part(paid.detail, ' ', 1) AS payee,
    substr(paid.detail, strpos(paid.detail, ' ') + 1) AS reference,
    paid.amount,
    (
        SELECT min(back.position) FROM transaction AS back
        WHERE back.original = paid.position AND back.operation = 'reversal' AND back.response = '00' AND back.cash > 0
    ) AS undone
FROM transaction AS paid
WHERE paid.operation = 'bill_payment' AND paid.detail IS NOT NULL;

-- What meters reported. A place that is more than one word stands between quotes in `detail`, each quote in it doubled.
CREATE VIEW meter_event AS
SELECT
    position,
    business_date,
    at,
    local_time,
    terminal_id,
    merchant_id,
    split_part(detail, ' ', 1) AS kind,
    nullif(CASE WHEN said LIKE '"%' THEN replace(substr(quoted, 2, length(quoted) - 2), '""', '"') ELSE split_part(said, ' ', 1) END, '') AS place,
    nullif(CASE WHEN said LIKE '"%' THEN substr(said, length(quoted) + 2) ELSE substr(said, length(split_part(said, ' ', 1)) + 2) END, '') AS value,
    split_part(detail, ' ', 1) IN ('overload', 'fire') AS is_tripped
FROM transaction
CROSS JOIN LATERAL (SELECT substr(detail, length(split_part(detail, ' ', 1)) + 2) AS said) AS told
CROSS JOIN LATERAL (SELECT substring(said FROM '^"(?:[^"]|"")*"') AS quoted) AS place
WHERE operation = 'event' AND detail IS NOT NULL;

-- A business date in sums. Of reversals: what they undid, and what of it. Holds and lapses move no money: `cash` is what was held, or is free again.
CREATE VIEW day_total AS
SELECT
    business_date,
    merchant_id,
    terminal_id,
    operation,
    CASE operation WHEN 'reversal' THEN detail END AS undone,
    response,
    count(*) AS count,
    sum(CASE operation WHEN 'reversal' THEN cash + subsidy - coalesce(surcharge, 0) ELSE amount END)::bigint AS amount,
    sum(cash)::bigint AS cash,
    sum(subsidy)::bigint AS subsidy,
    coalesce(sum(surcharge), 0)::bigint AS surcharge
FROM transaction
GROUP BY 1, 2, 3, 4, 5, 6;
