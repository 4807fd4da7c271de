-- The journal's records as tables. Money is in fen, a business date is the campus's own day.
-- What a terminal or the campus numbers is compared byte by byte (COLLATE "C"), whatever the database's language.

-- Which journal this database follows, and the last record that is in it. One row.
CREATE TABLE journal_position (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    journal text NOT NULL,
    position bigint NOT NULL,
    moved_at timestamptz NOT NULL DEFAULT now()
);

-- Every decision that is remembered, approved or declined.
CREATE TABLE transaction (
    position bigint NOT NULL,
    business_date date NOT NULL,
    at timestamptz NOT NULL,
    operation text COLLATE "C" NOT NULL,
    response text COLLATE "C" NOT NULL,
    terminal_id text COLLATE "C" NOT NULL,
    merchant_id text COLLATE "C",
    card_number text COLLATE "C",
    holder_id text COLLATE "C",
    stan integer NOT NULL,
    local_time timestamp NOT NULL,
    amount bigint NOT NULL,
    cash bigint NOT NULL,
    subsidy bigint NOT NULL,
    original bigint,
    cash_after bigint,
    subsidy_after bigint,
    batch_number integer,
    PRIMARY KEY (business_date, position)
) PARTITION BY RANGE (business_date);

-- A partition is one business date, so the date need not stand in these; a key alone keeps them small (B-tree deduplication).
CREATE INDEX transaction_card ON transaction (card_number);
CREATE INDEX transaction_merchant ON transaction (merchant_id);
CREATE INDEX transaction_terminal ON transaction (terminal_id);

-- Double entry: what left one account and reached another.
CREATE TABLE posting (
    position bigint NOT NULL,
    business_date date NOT NULL,
    line smallint NOT NULL,
    debit_account integer NOT NULL,
    credit_account integer NOT NULL,
    amount bigint NOT NULL,
    PRIMARY KEY (business_date, position, line)
) PARTITION BY RANGE (business_date);

-- From here on: each row as of the journal position above. A balance is what the campus owes the owner; room is left in each
-- page so that a new balance does not touch the index (heap-only update).
CREATE TABLE account (
    account integer PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    balance bigint NOT NULL,
    holds bigint NOT NULL
) WITH (fillfactor = 60);

CREATE TABLE cardholder (
    holder_id text COLLATE "C" PRIMARY KEY,
    cash_account integer NOT NULL,
    subsidy_account integer NOT NULL
);

CREATE TABLE card (
    card_number text COLLATE "C" PRIMARY KEY,
    holder_id text COLLATE "C" NOT NULL,
    class text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL,
    expires date NOT NULL
);
CREATE INDEX card_holder ON card (holder_id);

CREATE TABLE merchant (
    merchant_id text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    category text COLLATE "C" NOT NULL,
    fee_bp integer NOT NULL,
    account integer NOT NULL
);

CREATE TABLE terminal (
    terminal_id text COLLATE "C" PRIMARY KEY,
    merchant_id text COLLATE "C" NOT NULL,
    kind text COLLATE "C" NOT NULL,
    zone text COLLATE "C" NOT NULL,
    signed_on boolean NOT NULL
) WITH (fillfactor = 60);

-- What people did to the switch itself: imports, changed limits.
CREATE TABLE operator_action (
    position bigint PRIMARY KEY,
    at timestamptz NOT NULL,
    action text COLLATE "C" NOT NULL,
    detail text NOT NULL
);

-- Makes the partitions of a business date where they are missing. Made apart and then attached, because CREATE TABLE ... PARTITION OF
-- would wait for every reader of the parent, and every reader after it.
CREATE FUNCTION open_business_date(opened date) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    parent text;
    day text;
BEGIN
    FOREACH parent IN ARRAY ARRAY['transaction', 'posting'] LOOP
        day := parent || to_char(opened, '_YYYY_MM_DD');
        CONTINUE WHEN to_regclass(quote_ident(day)) IS NOT NULL;
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', day, parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', parent, day, opened, opened + 1);
    END LOOP;
END
$$;

-- What cardholders paid at merchants, purse by purse; what they got back is negative.
CREATE VIEW spending AS
SELECT
    decided.business_date,
    decided.position,
    decided.terminal_id,
    decided.merchant_id,
    decided.card_number,
    CASE WHEN posting.debit_account IN (cash_account, subsidy_account) THEN posting.amount ELSE -posting.amount END AS amount
FROM transaction AS decided
JOIN cardholder USING (holder_id)
JOIN posting USING (business_date, position)
WHERE decided.merchant_id IS NOT NULL
    AND (posting.debit_account IN (cash_account, subsidy_account)) <> (posting.credit_account IN (cash_account, subsidy_account));
