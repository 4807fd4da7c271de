-- The debit of a purchase with its duplicate check, as PostgreSQL does it best here: one function, called as a prepared statement,
-- that reads five rows by their keys and writes two.
--
-- In its favour: a transaction is its own double entry (debit, credit, amount), so there is one row to insert. A merchant's balance
-- is the sum over its transactions and not a row of its own, for which everybody who pays there at noon would wait. There are no
-- foreign keys, no triggers and no MAC.

CREATE TABLE merchant (
    merchant_id text PRIMARY KEY,
    account integer NOT NULL UNIQUE
);

CREATE TABLE terminal (
    terminal_id text PRIMARY KEY,
    merchant_id text NOT NULL
);

CREATE TABLE card (
    card_number bigint PRIMARY KEY,
    status text NOT NULL,
    expires date NOT NULL,
    account integer NOT NULL
);

-- Fen. Room is left in each page, so that a new balance stands beside the old one and no index is touched.
CREATE TABLE purse (
    account integer PRIMARY KEY,
    opening bigint NOT NULL,
    balance bigint NOT NULL CHECK (balance >= 0)
) WITH (fillfactor = 50);

CREATE TABLE transaction (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    terminal_id text NOT NULL,
    business_date date NOT NULL,
    stan integer NOT NULL,
    card_number bigint NOT NULL,
    amount bigint NOT NULL,
    response text NOT NULL,
    debit integer,
    credit integer,
    balance bigint,
    UNIQUE (terminal_id, business_date, stan)
);

-- Of two with the same identity at once, the second fails whole at the unique key; repeated, it finds what the first was answered.
CREATE FUNCTION purchase(
    of_terminal text, of_merchant text, of_date date, of_stan integer, of_card bigint, of_amount bigint,
    OUT response text, OUT "position" bigint, OUT balance bigint
) LANGUAGE plpgsql AS $$
DECLARE
    known transaction;
    merchant_account integer;
    payer card;
BEGIN
    SELECT * INTO known FROM transaction t
        WHERE t.terminal_id = of_terminal AND t.business_date = of_date AND t.stan = of_stan;
    IF FOUND THEN
        IF known.card_number = of_card AND known.amount = of_amount THEN
            response := known.response;
            "position" := known.position;
            balance := known.balance;
        ELSE
            response := '94';
        END IF;
        RETURN;
    END IF;
    SELECT m.account INTO merchant_account FROM terminal t JOIN merchant m USING (merchant_id)
        WHERE t.terminal_id = of_terminal AND t.merchant_id = of_merchant;
    SELECT * INTO payer FROM card c WHERE c.card_number = of_card;
    IF merchant_account IS NULL THEN
        response := '58';
        RETURN;
    END IF;
    response := CASE
        WHEN of_amount NOT BETWEEN 1 AND 5000000 THEN '13'
        WHEN payer.account IS NULL THEN '14'
        WHEN payer.status = 'lost' THEN '41'
        WHEN payer.status <> 'active' THEN '62'
        WHEN payer.expires < of_date THEN '54'
        ELSE '00'
    END;
    IF response = '00' THEN
        UPDATE purse p SET balance = p.balance - of_amount
            WHERE p.account = payer.account AND p.balance >= of_amount
            RETURNING p.balance INTO balance;
        IF NOT FOUND THEN
            response := '51';
        END IF;
    END IF;
    INSERT INTO transaction AS t (terminal_id, business_date, stan, card_number, amount, response, debit, credit, balance)
        VALUES (
            of_terminal, of_date, of_stan, of_card, of_amount, response,
            CASE response WHEN '00' THEN payer.account END, CASE response WHEN '00' THEN merchant_account END, balance
        )
        RETURNING t.position INTO "position";
END
$$;
